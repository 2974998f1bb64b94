"""Names of the environment variables that hold settings, for settings and for messages."""

PREFIX = "XL3M_"


def variable(setting: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{setting.upper()}"
