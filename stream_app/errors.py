"""The errors of the stream, under those of the method. Each message says what to do.

XL3MError
├── SettingsError       a setting that cannot be used
├── SchemaError         what lies in Redis was laid out by another version
├── UnreachableError    the broker, Redis or a worker does not answer
├── EmbeddedError       a service that was to be started here did not start
└── BadEvent            an event that cannot be used
"""

from xl3m_core.errors import XL3MError


class SettingsError(XL3MError, ValueError):
    """A setting that cannot be used; the message names its variable."""


class SchemaError(XL3MError, RuntimeError):
    """What lies in Redis was laid out by another version of this program."""


class UnreachableError(XL3MError, ConnectionError):
    """The broker, Redis or a worker does not answer where it was looked for."""


class EmbeddedError(XL3MError, RuntimeError):
    """A service that was to be started here did not start."""


class BadEvent(XL3MError, ValueError):
    """An event that cannot be used; the message is the reason its sender is given."""
