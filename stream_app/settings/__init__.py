"""Settings: everything a user may configure, read once from `XL3M_...` environment variables.

`Settings` (model.py) has one field per setting with its default, bounds and description.
variables.py reads the environment, checks.py holds the checks that a type cannot express,
types.py has the types with their bounds, faults.py words the errors, offset_reset.py reads
`XL3M_START`. scripts/settings_table.py writes docs/settings.md.
"""

from stream_app.settings.model import Settings, unknown_variables
from stream_app.settings.types import MAX_DEADLINE, Encoding, Format, IsolationLevel, Unreadable
from stream_app.settings.variables import kafka_home, variable

__all__ = [
    "MAX_DEADLINE",
    "Encoding",
    "Format",
    "IsolationLevel",
    "Settings",
    "Unreadable",
    "kafka_home",
    "unknown_variables",
    "variable",
]
