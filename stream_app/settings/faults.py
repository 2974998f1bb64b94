"""Faults: what is wrong with a setting, in a message that names its variable.

Written from pydantic's errors, without the values, which may be secrets; only numbers are shown.
"""

from typing import get_args

from annotated_types import Ge, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stream_app.settings.variables import variable

EXACT = 2**53 - 1
"""This bound is shown as 2^53."""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """All that is wrong, named by the variables."""
    details = error.errors(include_url=False)
    return "; ".join(dict.fromkeys(_describe(each, model.model_fields) for each in details))


def _describe(detail: ErrorDetails, fields: dict[str, FieldInfo]) -> str:
    name = str(detail["loc"][0])
    if name not in fields:
        return f"{variable(name)} is not a setting"
    return f"{variable(name)} {_fault(detail, fields[name])}"


def _fault(detail: ErrorDetails, field: FieldInfo) -> str:
    kind = detail["type"]
    if kind == "value_error":  # of checks.py
        return str(detail["ctx"]["error"])
    if kind in ("int_parsing", "int_type", "int_from_float"):
        return f"must be a whole number, not {detail['input']!r}"
    if kind in ("float_parsing", "float_type"):
        return f"must be a number, not {detail['input']!r}"
    if kind == "literal_error":
        return f"must be one of {', '.join(choices(field))}"
    if kind == "string_too_short":
        return "must be non-empty"
    if kind.startswith("string"):
        return "is not UTF-8" if kind == "string_unicode" else "must be text"
    return f"must be from {bounds_text(field)}"


def choices(field: FieldInfo) -> list[str]:
    """The values of a `Literal`, but for the empty one."""
    return [choice for choice in get_args(field.annotation) if choice]


def bounds(field: FieldInfo) -> tuple[float, float] | None:
    """The smallest and the largest value allowed; None for a setting that is not a number."""
    least = [limit.ge for limit in field.metadata if isinstance(limit, Ge)]
    most = [limit.le for limit in field.metadata if isinstance(limit, Le)]
    return (least[0], most[0]) if least and most else None  # type: ignore[return-value]


def bounds_text(field: FieldInfo) -> str:
    """The bounds in words."""
    least, most = bounds(field) or (0, EXACT)
    return f"{least:.0f} to {'2^53' if most == EXACT else f'{most:.0f}'}"
