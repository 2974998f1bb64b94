"""Cues: the pieces a transcript comes in, half-sentences mostly, and how they become records.

Knows the formats; opens nothing.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import srt
from webvtt.vtt import WebVTTCueBlock

# A record is an utterance: it ends with a sentence that makes it this long, or at twice that.
UTTERANCE_CHARS = 500
# Who is silent for so long begins a new one.
PAUSE_SECONDS = 15.0

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?(?:[cibuv]|ruby|rt|lang|font)(?:[.\s][^>]*)?/?>|<\d+:[\d:.]+>", re.I)
_SAID = re.compile(r"(?P<who>[^\W\d_][^:\n<>]{0,63}?):\s+(?P<what>\S.*)", re.S)
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)")
_ENDS = re.compile(r"[.!?…。！？]['\"”’)\]]*$")
_BLANKS = re.compile(r"\s+")

_LISTS = ("segments", "entries", "transcription", "transcript", "utterances", "results")
_WHO = ("speaker", "speakerDisplayName", "speaker_name", "speakerName", "user_name", "username")
_WHEN = ("start", "startOffset", "start_time", "startTime", "start_ts", "ts", "begin")
_SAYS = ("text", "content", "caption")


class Cue(NamedTuple):
    """What somebody said at a time in seconds; either may not be known."""

    start: float | None
    speaker: str
    text: str


def split_blocks(text: str) -> Iterator[list[str]]:
    """The lines between blank lines."""
    for block in re.split(r"\n[ \t]*\n+", text):
        if lines := [line for line in block.split("\n") if line.strip()]:
            yield lines


def parse_webvtt(found: Iterable[list[str]]) -> Iterator[Cue]:
    """Cues of WebVTT; a block that is none is text without a time, as of the one before."""
    for number, lines in enumerate(found):
        if number == 0 and lines[0].startswith("WEBVTT"):
            lines = _behind_header(lines)
        elif lines[0].split(maxsplit=1)[0] in ("NOTE", "STYLE", "REGION"):
            continue
        while lines:
            timed = next((i for i, line in enumerate(lines[1:], 1) if "-->" in line), len(lines))
            if "-->" in lines[0] and timed < len(lines):  # no blank line between two cues
                yield from _webvtt_cue(lines[:timed])
                lines = lines[timed:]
                continue
            yield from _webvtt_cue(lines)
            break


def parse_subrip(text: str) -> Iterator[Cue]:
    """Cues of SubRip; what stands between them is text without a time."""
    behind = 0
    for found in srt.SRT_REGEX.finditer(text):
        if lost := text[behind : found.start()].strip():
            yield from _untimed(lost)
        at = _seconds(found[2])
        yield from _said(at, found[5] or "")
        behind = found.end()
    if lost := text[behind:].strip():
        yield from _untimed(lost)


def parse_json(document: Any) -> Iterator[Cue] | None:
    """Cues of a document of Whisper, WhisperX, whisper.cpp, Teams or Zoom; None if it is another
    one."""
    for found in _lists(document):
        if found and all(isinstance(each, dict) and _says(each) for each in found):
            timed = [_at(each) is not None for each in found]
            if all(timed) if isinstance(document, list) else any(timed):
                return (cue for each in found for cue in _of_fields(each))
    return None


def merge_cues(cues: Iterable[Cue]) -> Iterator[str]:
    """Records, each of one speaker; no word is in none of them."""
    held: list[Cue] = []
    size, last = 0, 0.0
    for cue in cues:
        if held and _parts(held, size, cue, last):
            yield _record(held)
            held, size = [], 0
        held.append(cue)
        size += len(cue.text)
        last = cue.start if cue.start is not None else last
    if held:
        yield _record(held)


def _parts(held: list[Cue], size: int, cue: Cue, last: float) -> bool:
    """Whether the cue begins a new record."""
    ended = bool(_ENDS.search(held[-1].text))
    paused = (
        cue.start is not None and held[0].start is not None and cue.start - last > PAUSE_SECONDS
    )
    long = size >= UTTERANCE_CHARS and (ended or size >= 2 * UTTERANCE_CHARS)
    return cue.speaker != held[0].speaker or paused or long


def _record(held: list[Cue]) -> str:
    who = f"{held[0].speaker}: " if held[0].speaker else ""
    clock = next((_clock(cue.start) + " " for cue in held if cue.start is not None), "")
    return f"{clock}{who}{' '.join(cue.text for cue in held)}\n"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _behind_header(lines: list[str]) -> list[str]:
    """A cue that follows the header without a blank line; else nothing of it is text."""
    timed = next((i for i, line in enumerate(lines) if "-->" in line), None)
    return lines[timed:] if timed else []


def _webvtt_cue(lines: list[str]) -> Iterator[Cue]:
    if WebVTTCueBlock.is_valid(lines):
        cue = WebVTTCueBlock.from_lines(lines)
        yield from _voices(_seconds(cue.start), "\n".join(cue.payload))
    else:
        yield from _untimed("\n".join(line for line in lines if "-->" not in line))


def _voices(at: float | None, text: str) -> Iterator[Cue]:
    """One cue for each voice of it."""
    parts = _VOICE.split(text)
    yield from _said(at, parts[0])
    for who, what in zip(parts[1::2], parts[2::2], strict=True):
        yield from _cue(at, html.unescape(who), _plain(what))


def _untimed(text: str) -> Iterator[Cue]:
    yield from _voices(None, text)


def _said(at: float | None, text: str) -> Iterator[Cue]:
    """A cue whose text may begin with the name of who speaks."""
    plain = _plain(text)
    found = _SAID.fullmatch(plain)
    yield from _cue(at, found["who"], found["what"]) if found else _cue(at, "", plain)


def _cue(at: float | None, who: str, text: str) -> Iterator[Cue]:
    """In pieces that are no longer than a record may be."""
    text, who = _BLANKS.sub(" ", text).strip(), _BLANKS.sub(" ", who).strip()[:100]
    for start in range(0, len(text), 4 * UTTERANCE_CHARS):
        yield Cue(at, who, text[start : start + 4 * UTTERANCE_CHARS])


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", html.unescape(_TAG.sub("", text))).strip()


def _seconds(time: Any) -> float | None:
    """Of `01:02:03.5`, `02:03,5`, `PT3.5S`, or a number."""
    if isinstance(time, int | float) and not isinstance(time, bool):
        return float(time) if 0 <= time < 1e9 else None
    if not isinstance(time, str):
        return None
    found = _CLOCK.fullmatch(time.strip()) or _DURATION.fullmatch(time.strip())
    if not found:
        return None
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in found.groups())
    total = hours * 3600 + minutes * 60 + seconds
    return total if total < 1e9 else None


def _lists(document: Any) -> Iterator[list[Any]]:
    if isinstance(document, list):
        yield document
    elif isinstance(document, dict):
        for name in _LISTS:
            found = document.get(name)
            if isinstance(found, list):
                yield found
            elif isinstance(found, dict):
                yield from _lists(found)


def _says(fields: dict[str, Any]) -> bool:
    """Whether there is a text in it, be it an empty one."""
    return any(isinstance(fields.get(name), str) for name in _SAYS)


def _of_fields(fields: dict[str, Any]) -> Iterator[Cue]:
    text, who = str(_first(fields, _SAYS)), str(_first(fields, _WHO))
    if who:
        return _cue(_at(fields), who, text)
    return _said(_at(fields), text)


def _at(fields: dict[str, Any]) -> float | None:
    stamps = fields.get("timestamps")  # of whisper.cpp
    inner = stamps.get("from") if isinstance(stamps, dict) else None
    return _seconds(_first(fields, _WHEN) if inner is None else inner)


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of them that says something."""
    found = (fields[name] for name in names if fields.get(name) not in (None, ""))
    return next(found, "")
