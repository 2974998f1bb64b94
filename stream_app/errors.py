"""The errors of the stream, under those of the method. Each message says what to do.

XL3MError
├── SettingsError       a setting that cannot be used
├── SchemaError         the keys in Redis have the layout of another version
├── UnreachableError    the broker, Redis or a worker does not answer
│   └── RegistryError   the schema registry is down, or refuses this worker
├── EmbeddedError       an embedded service did not start
└── BadEvent            an event that cannot be used
"""

from xl3m_core.errors import XL3MError


class SettingsError(XL3MError):
    """A setting that cannot be used; the message names its variable. Not a ValueError, which
    pydantic would wrap in its own error."""


class SchemaError(XL3MError, RuntimeError):
    """The keys in Redis have the layout of another version of this program."""


class UnreachableError(XL3MError, ConnectionError):
    """The broker, Redis or a worker does not answer at its address."""

    service = "Redis"
    """The name of the service in the log line of a retry."""


class RegistryError(UnreachableError):
    """The schema registry gives no schemas: it is down, it is another server, or it refuses us."""

    service = "the schema registry"


class EmbeddedError(XL3MError, RuntimeError):
    """An embedded service did not start."""


class BadEvent(XL3MError, ValueError):
    """An event that cannot be used; the message is the reason that its sender gets."""
