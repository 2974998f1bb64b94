"""The errors of the stream, under those of the method. Each message says what to do.

XL3MError
├── SettingsError       a setting that cannot be used
├── SchemaError         what lies in Redis was laid out by another version
├── UnreachableError    the broker, Redis or a worker does not answer
│   └── RegistryError   the schema registry gives no schemas, or does not let us in
├── EmbeddedError       a service that was to be started here did not start
└── BadEvent            an event that cannot be used
"""

from xl3m_core.errors import XL3MError


class SettingsError(XL3MError):
    """A setting that cannot be used; the message names its variable. It is no ValueError, which
    pydantic would wrap in an error of its own."""


class SchemaError(XL3MError, RuntimeError):
    """What lies in Redis was laid out by another version of this program."""


class UnreachableError(XL3MError, ConnectionError):
    """The broker, Redis or a worker does not answer where it was looked for."""

    service = "Redis"
    """What a step waits for that is tried again."""


class RegistryError(UnreachableError):
    """The schema registry gives no schemas: it is away, is none, or does not let us in."""

    service = "the schema registry"


class EmbeddedError(XL3MError, RuntimeError):
    """A service that was to be started here did not start."""


class BadEvent(XL3MError, ValueError):
    """An event that cannot be used; the message is the reason its sender is given."""
