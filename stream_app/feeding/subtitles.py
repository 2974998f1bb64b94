"""Subtitles: parses WebVTT, SubRip and JSON transcripts into cues, and merges cues into records.

A cue is mostly half a sentence; a record is an utterance of one speaker.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import srt
from webvtt.vtt import WebVTTCueBlock

# A record ends at the end of a sentence once it is this long, or at twice the length.
UTTERANCE_CHARS = 500
# A pause this long begins a new record.
PAUSE_SECONDS = 15.0

_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG = re.compile(r"</?(?:[cibuv]|ruby|rt|lang|font)(?:[.\s][^>]*)?/?>|<\d+:[\d:.]+>", re.I)
_SPEAKER_PREFIX = re.compile(r"(?P<speaker>[^\W\d_][^:\n<>]{0,63}?):\s+(?P<text>\S.*)", re.S)
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)")
_ENDS = re.compile(r"[.!?…。！？]['\"”’)\]]*$")
_BLANKS = re.compile(r"\s+")

_LIST_FIELDS = ("segments", "entries", "transcription", "transcript", "utterances", "results")
_SPEAKER_FIELDS = (
    "speaker",
    "speakerDisplayName",
    "speaker_name",
    "speakerName",
    "user_name",
    "username",
)
_TIME_FIELDS = ("start", "startOffset", "start_time", "startTime", "start_ts", "ts", "begin")
_TEXT_FIELDS = ("text", "content", "caption")


class Cue(NamedTuple):
    """One caption. start: in seconds; None if unknown. speaker: empty if unknown."""

    start: float | None
    speaker: str
    text: str


def split_blocks(text: str) -> Iterator[list[str]]:
    """Groups of lines, separated by blank lines."""
    for block in re.split(r"\n[ \t]*\n+", text):
        if lines := [line for line in block.split("\n") if line.strip()]:
            yield lines


def parse_webvtt(found: Iterable[list[str]]) -> Iterator[Cue]:
    """Cues of WebVTT; a malformed block becomes text without a time."""
    for number, lines in enumerate(found):
        if number == 0 and lines[0].startswith("WEBVTT"):
            lines = _after_header(lines)
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
    """Cues of SubRip; text between them has no time."""
    end = 0
    for found in srt.SRT_REGEX.finditer(text):
        if untimed := text[end : found.start()].strip():
            yield from _untimed(untimed)
        start = _seconds(found[2])
        yield from _cue_of_text(start, found[5] or "")
        end = found.end()
    if untimed := text[end:].strip():
        yield from _untimed(untimed)


def parse_json(document: Any) -> Iterator[Cue] | None:
    """Cues of JSON by Whisper, WhisperX, whisper.cpp, Teams or Zoom; None for any other JSON."""
    for found in _lists(document):
        if found and all(isinstance(each, dict) and _has_text(each) for each in found):
            timed = [_start_of(each) is not None for each in found]
            if all(timed) if isinstance(document, list) else any(timed):
                return (cue for each in found for cue in _cue_of_fields(each))
    return None


def merge_cues(cues: Iterable[Cue]) -> Iterator[str]:
    """Records `HH:MM:SS speaker: text`, each of one speaker; no text is lost."""
    held: list[Cue] = []
    size, last = 0, 0.0
    for cue in cues:
        if held and _begins_record(held, size, cue, last):
            yield _record(held)
            held, size = [], 0
        held.append(cue)
        size += len(cue.text)
        last = cue.start if cue.start is not None else last
    if held:
        yield _record(held)


def _begins_record(held: list[Cue], size: int, cue: Cue, last: float) -> bool:
    """Whether the cue begins a new record."""
    ended = bool(_ENDS.search(held[-1].text))
    paused = (
        cue.start is not None and held[0].start is not None and cue.start - last > PAUSE_SECONDS
    )
    long = size >= UTTERANCE_CHARS and (ended or size >= 2 * UTTERANCE_CHARS)
    return cue.speaker != held[0].speaker or paused or long


def _record(held: list[Cue]) -> str:
    speaker = f"{held[0].speaker}: " if held[0].speaker else ""
    clock = next((_clock(cue.start) + " " for cue in held if cue.start is not None), "")
    return f"{clock}{speaker}{' '.join(cue.text for cue in held)}\n"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _after_header(lines: list[str]) -> list[str]:
    """The lines from the first cue on, if one follows the header without a blank line."""
    timed = next((i for i, line in enumerate(lines) if "-->" in line), None)
    return lines[timed:] if timed else []


def _webvtt_cue(lines: list[str]) -> Iterator[Cue]:
    if WebVTTCueBlock.is_valid(lines):
        cue = WebVTTCueBlock.from_lines(lines)
        yield from _voices(_seconds(cue.start), "\n".join(cue.payload))
    else:
        yield from _untimed("\n".join(line for line in lines if "-->" not in line))


def _voices(start: float | None, text: str) -> Iterator[Cue]:
    """One cue per voice tag."""
    parts = _VOICE.split(text)
    yield from _cue_of_text(start, parts[0])
    for speaker, what in zip(parts[1::2], parts[2::2], strict=True):
        yield from _cue(start, html.unescape(speaker), _plain(what))


def _untimed(text: str) -> Iterator[Cue]:
    yield from _voices(None, text)


def _cue_of_text(start: float | None, text: str) -> Iterator[Cue]:
    """A cue whose text may begin with the speaker's name."""
    plain = _plain(text)
    found = _SPEAKER_PREFIX.fullmatch(plain)
    yield from _cue(start, found["speaker"], found["text"]) if found else _cue(start, "", plain)


def _cue(start: float | None, speaker: str, text: str) -> Iterator[Cue]:
    """Cues of at most the length of a record."""
    text, speaker = _BLANKS.sub(" ", text).strip(), _BLANKS.sub(" ", speaker).strip()[:100]
    for offset in range(0, len(text), 4 * UTTERANCE_CHARS):
        yield Cue(start, speaker, text[offset : offset + 4 * UTTERANCE_CHARS])


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", html.unescape(_TAG.sub("", text))).strip()


def _seconds(time: Any) -> float | None:
    """Parse `01:02:03.5`, `02:03,5`, `PT3.5S`, or a number; None if it is neither."""
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
        for name in _LIST_FIELDS:
            found = document.get(name)
            if isinstance(found, list):
                yield found
            elif isinstance(found, dict):
                yield from _lists(found)


def _has_text(fields: dict[str, Any]) -> bool:
    """Whether it has a text field, even an empty one."""
    return any(isinstance(fields.get(name), str) for name in _TEXT_FIELDS)


def _cue_of_fields(fields: dict[str, Any]) -> Iterator[Cue]:
    text, speaker = str(_first(fields, _TEXT_FIELDS)), str(_first(fields, _SPEAKER_FIELDS))
    if speaker:
        return _cue(_start_of(fields), speaker, text)
    return _cue_of_text(_start_of(fields), text)


def _start_of(fields: dict[str, Any]) -> float | None:
    stamps = fields.get("timestamps")  # whisper.cpp
    inner = stamps.get("from") if isinstance(stamps, dict) else None
    return _seconds(_first(fields, _TIME_FIELDS) if inner is None else inner)


def _first(fields: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first field that is set and not empty; else an empty string."""
    found = (fields[name] for name in names if fields.get(name) not in (None, ""))
    return next(found, "")
