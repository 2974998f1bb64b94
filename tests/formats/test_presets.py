"""Presets: events of real producers are read correctly."""

import base64
from pathlib import Path
from typing import Any

import pytest

from stream_app.formats.presets import PRESETS
from tests.support.decoding import KAFKA_MS, MS, T0, chunks, decoded, decoder

CASES = Path(__file__).parents[1] / "cases"


def case(name: str, **settings: Any) -> list[Any]:
    """The chunks of all lines in a file of cases."""
    lines = (CASES / name).read_bytes().splitlines()
    return [chunk for line in lines for chunk in chunks(line, **settings)]


POOL = "pool closed by peer 10.9.8.7:5432\n"
DONE = "request 1 done in 12 ms\n"
BILLING, AUTH = "billing-7d9f-abcde", "auth-55f7-xyz"
K8S = [
    (BILLING, DONE, MS + 123),
    (BILLING, f"E1130 10:00:01.223456       1 pool.go:42] {POOL}", MS + 1223),
    (AUTH, "kova logged in from 10.1.1.1\n", MS + 2323),
]
TRACE = "java.lang.IllegalStateException: peer 10.9.8.7\n\tat com.acme.Pool.get(Pool.java:42)\n"
RIGHT: list[tuple[str, str, list[Any]]] = [
    ("kubernetes", "k8s.json", K8S),
    ("json:fluentbit", "k8s.json", K8S),
    ("otlp", "otlp.json", [("billing", DONE, MS + 123), ("billing", POOL, MS + 1123)]),
    (
        "json:cloudwatch",
        "cloudwatch.json",
        [
            ("/aws/lambda/billing/2026/11/30/[$LATEST]abcdef", "START RequestId: 1\n", MS + 123),
            ("/aws/lambda/billing/2026/11/30/[$LATEST]abcdef", POOL, MS + 1123),
        ],
    ),
    (
        "json:log4j2",
        "log4j2_instant.json",
        [("key", DONE, MS + 123), ("key", f"pool closed\n{TRACE}", MS + 1123)],
    ),
    (
        "json:journald",
        "journald.json",
        [
            (
                "web-1",
                "Accepted publickey for kova from 10.9.8.7 port 5555 ssh2\n",
                MS + 123,
            ),
            ("web-1", "pool closed\x1b\n", MS + 1123),
        ],
    ),
    (
        "docker",
        "docker_partial.json",
        [
            ("key", DONE, T0 + 123),
            ("key", POOL, T0 + 1123),
            ("key", "a very long line in two parts, part one ", T0 + 2123),
            ("key", "part two ends here\n", T0 + 2123),
        ],
    ),
]


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(("format", "name", "right"), RIGHT, ids=[each[0] for each in RIGHT])
def test_the_cases_of_producers_are_read_by_their_presets(
    format: str, name: str, right: list[Any]
) -> None:
    assert case(name, input_format=format) == right


FRAMES = [{"class": "com.acme.Pool", "method": "get", "file": "Pool.java", "line": 42}]
CAUSE = {"name": "java.io.IOException", "message": "reset", "extendedStackTrace": FRAMES}
THROWN = {"name": "E", "message": "m", "commonElementCount": 3, "extendedStackTrace": FRAMES}
AT = "\tat com.acme.Pool.get(Pool.java:42)"
PRODUCED: list[tuple[str, dict[str, Any], tuple[str, str, int]]] = [
    (
        "ecs",
        {"@timestamp": "2026-11-30T10:00:00.123Z", "message": "a", "host": {"name": "web-1"}},
        ("web-1", "a\n", T0 + 123),
    ),
    (
        "ecs",
        {
            "@timestamp": "2026-11-30T10:00:00.123Z",
            "log.level": "ERROR",
            "message": "failed",
            "service.name": "billing",
            "error.type": "E",
            "error.stack_trace": f"E: m\n{AT}\n",
        },
        ("billing", f"failed\nE: m\n{AT}\n", T0 + 123),
    ),
    (
        "ecs",
        {"message": "flattened ecs", "host.name": "web-2", "host": {"name": "nested"}},
        ("web-2", "flattened ecs\n", KAFKA_MS),
    ),
    (
        "ecs",
        {"message": "only nested", "host": {"name": "web-3"}},
        ("web-3", "only nested\n", KAFKA_MS),
    ),
    ("ecs", {"message": "no host at all"}, ("key", "no host at all\n", KAFKA_MS)),
    (
        "fluentbit",
        {"@timestamp": "2026-11-30T10:00:00.123Z", "log": "no line break"},
        ("key", "no line break\n", T0 + 123),
    ),
    (
        "fluentbit",
        {"@timestamp": 1764496800.5, "MESSAGE": "of systemd"},
        ("key", "of systemd\n", MS + 500),
    ),
    (
        "cri",
        {"time": "2026-11-30T10:00:00Z", "stream": "stdout", "logtag": "P", "message": "part "},
        ("key", "part ", T0),
    ),
    ("cri", {"time": "2026-11-30T10:00:00Z", "_p": "F", "log": ""}, ("key", "\n", T0)),
    ("cri", {"log": "2026-11-30T10:00:00.5Z stderr F text"}, ("key", "text\n", T0 + 500)),
    (
        "docker",
        {"log": "of the fluentd driver", "container_id": "c", "source": "stdout"},
        ("key", "of the fluentd driver\n", KAFKA_MS),
    ),
    (
        "docker",
        {"log": "part ", "container_id": "c", "partial_message": "true", "partial_last": "false"},
        ("key", "part ", KAFKA_MS),
    ),
    (
        "kubernetes",
        {"log": "x" * 16_384, "kubernetes": {"pod_name": "p"}},
        ("p", "x" * 16_384, KAFKA_MS),
    ),
    (
        "log4j2",
        {"timeMillis": T0, "message": "m", "thrown": THROWN | {"cause": CAUSE}},
        ("key", f"m\nE: m\n{AT}\n\t... 3 more\nCaused by: java.io.IOException: reset\n{AT}\n", T0),
    ),
    (
        "log4j2",
        {
            "@timestamp": "2026-11-30T10:00:00Z",
            "source_host": "h",
            "message": "m",
            "exception": {"exception_class": "E", "stacktrace": f"E: m\n{AT}"},
        },
        ("h", f"m\nE: m\n{AT}\n", T0),
    ),
    (
        "journald",
        {"__REALTIME_TIMESTAMP": f"{T0}000", "_HOSTNAME": "h", "MESSAGE": [0xE9, 0x41]},
        ("h", "\N{REPLACEMENT CHARACTER}A\n", T0),
    ),
    (
        "gelf",
        {
            "version": "1.1",
            "host": "h",
            "short_message": "failed",
            "full_message": "failed\n\tat x",
            "timestamp": 1764496800.307,
        },
        ("h", "failed\n\tat x\n", MS + 307),
    ),
    (
        "gelf",
        {
            "host": "h",
            "short_message": "failed",
            "full_message": "the trace",
            "timestamp": 1764496800,
        },
        ("h", "failed\nthe trace\n", MS),
    ),
    (
        "logstash",
        {"@timestamp": "2026-11-30T10:00:00.123Z", "@version": "1", "message": "a", "host": "h"},
        ("h", "a\n", T0 + 123),
    ),
    (
        "logstash",
        {
            "@timestamp": "2026-11-30T10:00:00.123Z",
            "message": "a",
            "host": {"hostname": "h"},
            "stack_trace": "E\n\tat x",
        },
        ("h", "a\nE\n\tat x\n", T0 + 123),
    ),
]


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(("format", "record", "right"), PRODUCED)
def test_what_producers_document_is_read(
    format: str, record: dict[str, Any], right: tuple[str, str, int]
) -> None:
    assert chunks(record, input_format=f"json:{format}") == [right]
    assert chunks(record, input_format=format) == [right] or format == "cri"


def otlp(body: Any, **record: Any) -> dict[str, Any]:
    logs = [{"body": body, "timeUnixNano": str(T0 * 10**6)} | record]
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"stringValue": "a"}, "a"),
        ({"intValue": "7"}, "7"),
        ({"doubleValue": 1.5}, "1.5"),
        ({"boolValue": False}, "false"),
        ({"bytesValue": base64.b64encode("気".encode()).decode()}, "気"),
        ({"bytesValue": "no base64!"}, "no base64!"),
        ({"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": 1}]}}, '["a",1]'),
        (
            {"kvlistValue": {"values": [{"key": "k", "value": {"arrayValue": {"values": []}}}]}},
            '{"k":[]}',
        ),
    ],
)
def test_every_kind_of_value_of_opentelemetry_is_a_text(body: Any, text: str) -> None:
    assert chunks(otlp(body), input_format="otlp") == [("key", f"{text}\n", T0)]


@pytest.mark.guarantee("Event formats")
def test_the_observed_time_stands_in_where_the_time_is_unknown() -> None:
    value = otlp({"stringValue": "a"}, timeUnixNano="0", observedTimeUnixNano=str(T0 * 10**6))
    made = decoder(input_format="otlp")
    assert decoded(made, value)[0][0].time_ms == T0
    assert made.notes.unparsed == 0


@pytest.mark.guarantee("Event formats")
def test_a_message_of_control_is_skipped_and_counted() -> None:
    made = decoder(input_format="cloudwatch")
    event = {"message": "CWL CONTROL MESSAGE: Checking health", "timestamp": T0}
    assert decoded(made, {"messageType": "CONTROL_MESSAGE", "logEvents": [event]}) == ([], "")
    assert made.notes.skipped == 1


@pytest.mark.guarantee("Event formats")
def test_what_the_user_sets_goes_before_the_preset() -> None:
    value = (CASES / "k8s.json").read_bytes().splitlines()[2]
    mine: dict[str, Any] = {
        "key_field": "{kubernetes.namespace_name}/{stream}",
        "time_field": "time",
    }
    text = "{kubernetes.labels.app}: {log}"
    assert chunks(value, input_format="kubernetes", text=text, **mine) == [
        ("prod/stdout", "auth: kova logged in from 10.1.1.1\n", T0 + 2323)
    ]


@pytest.mark.guarantee("Event formats")
def test_every_preset_reads_some_record() -> None:
    tried = {each[0].removeprefix("json:") for each in RIGHT} | {each[0] for each in PRODUCED}
    assert tried == set(PRESETS)
