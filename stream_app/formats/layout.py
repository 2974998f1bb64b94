"""Layout: where the records, texts, times and stream names are in an event.

Compiled once from the settings; empty ones are taken from the preset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

from stream_app.errors import SettingsError
from stream_app.formats.lines import LineRule, line_rule
from stream_app.formats.paths import (
    MISSING,
    Lookup,
    Scopes,
    Steps,
    compile_paths,
    compile_records,
    follow,
    parse,
    split_records,
)
from stream_app.formats.presets import Preset, form_and_preset
from stream_app.formats.templates import Render, ToText, compile_text, is_template, paths_of
from stream_app.formats.values import as_text, key_as_text, same

HEADER = "header:"


class FormatSettings(Protocol):
    """The settings that describe the content of events."""

    @property
    def input_format(self) -> str: ...
    @property
    def records_field(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def text_field(self) -> str: ...
    @property
    def time_field(self) -> str: ...
    @property
    def key_field(self) -> str: ...
    @property
    def time_from_line(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """form: `lines`, `cri`, `json` or `msgpack`; records: paths of nested arrays down to the
    records; text, behind and key: render the text, what follows it, and the stream's name;
    text_paths: all paths in the text; times: where to look for the time, in this order; header:
    with the stream's name; joins: whether a text can be a part of a line; missing_text,
    missing_records: reasons for the dead letter."""

    form: str
    preset: Preset
    records: list[Steps]
    text: Render
    text_paths: list[Steps]
    behind: Render | None
    times: list[Lookup]
    key: Render | None
    header: str
    rule: LineRule | None
    joins: bool
    missing_text: str
    missing_records: str

    @classmethod
    def of(cls, settings: FormatSettings) -> Self:
        """The layout for these settings. Raises SettingsError."""
        form, preset = form_and_preset(settings.input_format)
        text, name = _text(settings, preset)
        within, text = ("", text) if is_template(text) else split_records(text)
        records = _records(settings.records_field, within) or preset.records
        behind = "" if settings.text or settings.text_field else preset.behind
        key = settings.key_field or preset.key
        header = key.removeprefix(HEADER) if key.startswith(HEADER) else ""
        times = settings.time_field or preset.time
        return cls(
            form=form,
            preset=preset,
            records=_arrays(records, "XL3M_RECORDS_FIELD"),
            text=_render(text, name, records, _inside(preset.unwrap, as_text)),
            text_paths=paths_of(text, name, records) if text else [],
            behind=_optional(behind, "", records, _inside(preset.unwrap_behind, as_text)),
            times=compile_paths(times, "XL3M_TIME_FIELD", records),
            key=_optional(
                "" if header else key, "XL3M_KEY_FIELD", records,
                _inside(preset.unwrap, key_as_text),
            ),
            header=header,
            rule=line_rule(settings.time_from_line),
            joins=bool(preset.partial) and not is_template(text),
            missing_text=_missing(text, name),
            missing_records=f"there is no array at {records}: see XL3M_RECORDS_FIELD",
        )  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Whether each document is one record, and none is skipped."""
        return not self.records and self.preset.unless is None

    def fan_out(self, document: Any) -> Iterator[Scopes]:
        """The records of a document, each with the objects around it, from inner to outer."""
        return _records_in((document,), self.records)

    def has_records(self, document: Any) -> bool:
        """Whether the array of records exists, even if it is empty."""
        return not self.records or follow(document, self.records[0]) is not MISSING

    def has_text(self, scopes: Scopes) -> bool:
        """Whether any field of the text exists, even if it is null."""
        paths = self.text_paths
        return not paths or any(follow(s, each) is not MISSING for s in scopes for each in paths)


def _text(settings: FormatSettings, preset: Preset) -> tuple[str, str]:
    """The template or paths of the text, and the variable to name in errors."""
    if settings.text and settings.text_field:
        names = "XL3M_TEXT and XL3M_TEXT_FIELD"
        raise SettingsError(f"{names} both define the text: unset one of them")
    if settings.text and not is_template(settings.text):
        example = "{level} {message}"
        raise SettingsError(f"XL3M_TEXT must have fields in braces, as in {example}")
    if settings.text:
        return settings.text, "XL3M_TEXT"
    return settings.text_field or preset.text, "XL3M_TEXT_FIELD"


def _missing(text: str, setting: str) -> str:
    if is_template(text):
        return f"all fields of {setting}={text} are missing"
    return f"field {text!r} is missing: {setting} says where the text is"


def _records(given: str, within: str) -> str:
    """The path of the records: XL3M_RECORDS_FIELD, or the array in XL3M_TEXT_FIELD."""
    given = given if not given or given.endswith("[]") else f"{given}[]"
    if given and within and given != within:
        both = "XL3M_RECORDS_FIELD and XL3M_TEXT_FIELD"
        raise SettingsError(f"{both} name different arrays, {given} and {within}: unset one")
    return given or within


def _arrays(records: str, setting: str) -> list[Steps]:
    return [parse(name, setting) for name in compile_records(records, setting)] if records else []


def _inside(unwrap: Callable[[Any], Any], to_text: ToText) -> ToText:
    return to_text if unwrap is same else lambda value: to_text(unwrap(value))


def _render(text: str, setting: str, records: str, to_text: ToText) -> Render:
    """Without a path the text is the record itself, as in `lines[]`."""
    if not text and records:
        return lambda scopes: to_text(scopes[0])
    return compile_text(text, setting, records, to_text)


def _optional(text: str, setting: str, records: str, to_text: ToText) -> Render | None:
    return compile_text(text, setting, records, to_text) if text else None


def _records_in(scopes: Scopes, arrays: list[Steps]) -> Iterator[Scopes]:
    """A map in place of an array is its only item; a missing array has no items."""
    if not arrays:
        yield scopes
        return
    found = follow(scopes[0], arrays[0])
    if not isinstance(found, list):
        found = [] if found is None or found is MISSING else [found]
    for item in found:
        yield from _records_in((item, *scopes), arrays[1:])
