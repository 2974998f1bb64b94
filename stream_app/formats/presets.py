"""Presets: what well-known producers call records, texts, times and streams.

`XL3M_INPUT_FORMAT=json:ecs`, or `ecs` alone. A preset only fills settings that the user left empty.
Knows names of fields; follows none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream_app.errors import SettingsError
from stream_app.formats.traces import trace_text
from stream_app.formats.values import any_value, joined_bytes, same

FORMS = ("lines", "cri", "json", "msgpack")
"""How the value of an event is written."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Paths, as the settings of these names have them. behind: what follows the text if it is
    there, such as a stack trace; partial: whether a text may be a part of a line; unless: records
    that are left out, by a field's value; unwrap: what is inside a value."""

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
    """What a format says: how values are written, and the preset. Raises SettingsError."""
    if format in FORMS:
        return format, Preset()
    name = format.removeprefix("json:")
    if name not in PRESETS:
        known = ", ".join(f"json:{each}" for each in PRESETS)
        raise SettingsError(
            f"XL3M_INPUT_FORMAT must be one of {', '.join(FORMS)}, {known}, not {format!r}"
        )
    return "json", PRESETS[name]
