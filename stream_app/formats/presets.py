"""Presets: the fields in which well-known producers put records, texts, times and streams.

`XL3M_INPUT_FORMAT=json:ecs`, or just `ecs`. A preset only fills in settings that are empty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream_app.errors import SettingsError
from stream_app.formats.traces import trace_text
from stream_app.formats.values import any_value, joined_bytes, same

FORMS = ("lines", "cri", "json", "msgpack")
"""Encodings of an event's value."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Paths, as in the settings. behind: appended to the text if it exists, such as a stack trace;
    partial: how to tell whether a text is a part of a line; unless: field and value of records to
    skip; unwrap: extracts what a value wraps."""

    text: str = "text"
    time: str = "time"
    key: str = ""
    records: str = ""
    behind: str = ""
    partial: str = ""
    unless: tuple[str, str] | None = None
    unwrap: Callable[[Any], Any] = same
    unwrap_behind: Callable[[Any], Any] = same


PRESETS = {
    "ecs": Preset(
        "message", "@timestamp", "host.name,service.name,host.hostname",
        behind="error.stack_trace",
    ),
    "fluentbit": Preset(
        "log,message,MESSAGE,msg", "@timestamp,timestamp,time,date", "kubernetes.pod_name",
        partial="flags", unwrap=joined_bytes,
    ),
    "docker": Preset("log", "time", partial="newline"),
    "cri": Preset("message,log", "time,@timestamp,timestamp", partial="flags"),
    "kubernetes": Preset(
        "log,message", "@timestamp,time,timestamp", "kubernetes.pod_name,kubernetes.pod.name",
        partial="flags",
    ),
    "otlp": Preset(
        "body", "timeUnixNano,observedTimeUnixNano", "resource.attributes[service.name]",
        "resourceLogs[].scopeLogs[].logRecords[]", unwrap=any_value,
    ),
    "log4j2": Preset(
        "message", "instant,timeMillis,@timestamp,timestamp", "host.name,service.name,source_host",
        behind="thrown,error.stack_trace,exception.stacktrace", unwrap_behind=trace_text,
    ),
    "cloudwatch": Preset(
        "message", "timestamp", "{logGroup}/{logStream}", "logEvents[]",
        unless=("messageType", "CONTROL_MESSAGE"),
    ),
    "journald": Preset(
        "MESSAGE", "__REALTIME_TIMESTAMP,_SOURCE_REALTIME_TIMESTAMP", "_HOSTNAME",
        unwrap=joined_bytes,
    ),
    "gelf": Preset("short_message", "timestamp", "host", behind="full_message"),
    "logstash": Preset(
        "message", "@timestamp", "host.name,host.hostname,host,source_host",
        behind="error.stack_trace,stack_trace",
    ),
}  # fmt: skip


def form_and_preset(format: str) -> tuple[str, Preset]:
    """The encoding and the preset that a format names. Raises SettingsError."""
    if format in FORMS:
        return format, Preset()
    name = format.removeprefix("json:")
    if name not in PRESETS:
        known = ", ".join(f"json:{each}" for each in PRESETS)
        raise SettingsError(
            f"XL3M_INPUT_FORMAT must be one of {', '.join(FORMS)}, {known}, not {format!r}"
        )
    return "json", PRESETS[name]
