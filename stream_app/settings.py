"""Settings: every number and name a user may change, read once from the environment.

The only place that reads it. Each field is `XL3M_` and its name in capitals; what is not
given keeps the default below. Knows no part that uses them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args
from urllib.parse import urlsplit

from stream_app.bounds import BOUNDS, MAX_DEADLINE, check_number
from stream_app.checks import (
    check_format,
    check_kafka,
    check_registry,
    check_start,
    check_topics,
    is_address,
)
from stream_app.errors import SettingsError
from stream_app.formats.layout import Layout
from stream_app.formats.presets import form_and_preset
from stream_app.store.keys import prefix_fault
from stream_app.variables import convert, unknown, variable, with_secrets
from xl3m_core.method import Measure, Method
from xl3m_core.records import record_start

__all__ = ["MAX_DEADLINE", "Settings", "kafka_home", "unknown_variables"]

Format = Literal["lines", "cri", "json", "msgpack"]
KeyFormat = Literal["utf8", "hex", "long", "int", "uuid", "none"]
Encoding = Literal["strict", "replace"]
IsolationLevel = Literal["read_committed", "read_uncommitted"]
Unreadable = Literal["skip", "wait"]
Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
LogFormat = Literal["text", "json"]
Dtype = Literal["", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen; derive a changed copy with `dataclasses.replace`. Addresses and secrets stay out of
    `repr`."""

    broker: str = field(default="kafka://127.0.0.1:9092", repr=False)
    redis: str = field(default="redis://127.0.0.1:6379/0", repr=False)

    kafka_security_protocol: Security = "PLAINTEXT"
    """How to get in, named as Kafka names it: SSL encrypts, SASL says who we are."""
    kafka_sasl_mechanism: Mechanism = ""
    kafka_sasl_username: str = ""
    kafka_sasl_password: str = field(default="", repr=False)
    kafka_sasl_token_file: str = field(default="", repr=False)
    """For OAUTHBEARER; it is read again for each connection, so it may be renewed."""
    kafka_ssl_cafile: str = field(default="", repr=False)
    """PEM file of the authorities that may vouch for the broker; empty: the system's."""
    kafka_ssl_certfile: str = field(default="", repr=False)
    kafka_ssl_keyfile: str = field(default="", repr=False)
    """PEM files that say who we are; a key may lie in the certificate's file."""

    model: str = ""
    """A folder or a hub id; empty for the small model that comes along."""
    context_window: int = 0
    """The model's window in tokens; 0 takes what its config says."""
    dtype: Dtype = ""
    """Of the weights; empty for bfloat16 where the hardware multiplies it fast, else float32."""
    group: str = "xl3m"
    """The Kafka consumer group; workers of one group share the partitions."""

    tokens_topic: str = "xl3m.tokens"
    questions_topic: str = "xl3m.questions"
    queries_topic: str = "xl3m.queries"
    answers_topic: str = "xl3m.answers"
    dead_letters_topic: str = "xl3m.dead-letters"

    prefix: str = "xl3m"
    """What every key and channel in Redis begins with; two groups on one Redis have one each."""
    start: str = "earliest"
    """Where a partition that was never read begins: `earliest`, `latest`, a time, or `-1h`."""
    isolation_level: IsolationLevel = "read_committed"
    unreadable: Unreadable = "skip"
    """A record that the Kafka client cannot read is skipped, or its partition waits."""

    input_format: str = "lines"
    """How events of the tokens topic are written: `lines`, `cri`, `json`, `json:PRESET` (or the
    preset's name alone) or `msgpack`."""
    records_field: str = ""
    text: str = ""
    text_field: str = ""
    time_field: str = ""
    key_field: str = ""
    """For JSON: paths of the array of records, the text (or a template of it), its time, and the
    stream (else the event's key); empty for what the format says."""
    key_format: KeyFormat = "utf8"
    """How the key of an event is written."""
    encoding: Encoding = "strict"
    """What is not UTF-8 is refused, or replaced by U+FFFD."""
    time_from_line: str = ""
    """For `lines`: `auto` reads a line's own time, a pattern says where it stands."""
    record_start: str = "auto"
    """A pattern found in the lines that begin a record; `auto` knows stack traces, `line` makes
    every line a record."""
    schema_registry: str = ""
    """The URL of a Confluent schema registry, for Avro, Protobuf and JSON Schema."""
    schema_registry_user: str = ""
    schema_registry_password: str = field(default="", repr=False)
    schema_registry_ca: str = field(default="", repr=False)

    segment_tokens: int = 0
    overlap_tokens: int = -1
    question_tokens: int = 0
    answer_tokens: int = 0
    k: int = 0
    """Sizes of the method; 0 (overlap: -1) derives them from the model's window."""
    measure: Measure = "entropy"

    batch_tokens: int = 4096
    """Tokens in one forward of the model."""
    step_target_ms: int = 200
    """How long, about, the model is at one step of scoring; answers go ahead of its batches."""
    prefix_cache_mb: int = 256
    """Memory for what the model has read of prompts that may come again."""
    max_lag_tokens: int = 65_536
    """A partition waits while more than this of its streams is read but not scored for a current
    question."""
    retention_segments: int = 200_000
    retention_bytes: int = 67_108_864
    """What is retained of a stream; texts among the best of a question stay beyond it."""
    query_deadline_seconds: float = 30.0
    """Seconds a query may score for before it is answered from what is covered."""
    adhoc_ttl_seconds: int = 3600
    """Seconds the scores of a question that was only asked once are kept."""
    max_event_bytes: int = 1_048_576
    max_batch_bytes: int = 67_108_864
    """Of a compressed batch of records when it is inflated."""
    max_streams: int = 100_000
    """In all of the Redis. What would make one more is a dead letter; those there are go on."""
    max_standing_questions: int = 64
    """Standing ones of a stream; one more is a dead letter."""
    max_adhoc_questions: int = 128
    """Questions asked once whose scores a stream keeps; one more takes the oldest one's place."""
    session_timeout_seconds: float = 30.0
    """The partitions of a worker that was silent for so long go to the others."""
    watchdog_seconds: float = 300.0
    """The worker ends itself when it holds events and gets nowhere for so long."""
    shutdown_timeout_seconds: float = 25.0
    """A worker that is told to stop has ended by then."""
    log_format: LogFormat = "text"
    """Of a worker's log."""
    http_port: int = 0
    http_host: str = "127.0.0.1"
    """Where a worker serves /metrics, /healthz and /readyz; port 0: nowhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Settings from the environment, overridden by what is given and not None. A variable that
        is empty counts as not set, as in files that pass all of them on."""
        env = with_secrets(os.environ if env is None else env)
        values = {
            f.name: convert(name, env[name], f.default)
            for f in fields(cls)
            if env.get(name := variable(f.name))
        }
        settings = cls(**values | {name: v for name, v in given.items() if v is not None})
        settings._check()
        return settings

    def method(self, window: int, k: int | None = None) -> Method:
        """The method these settings ask for, on a model with that window, which reads k segments
        well if it says so."""
        return Method.fit(
            window,
            segment_tokens=self.segment_tokens or None,
            overlap_tokens=None if self.overlap_tokens < 0 else self.overlap_tokens,
            question_tokens=self.question_tokens or None,
            answer_tokens=self.answer_tokens or None,
            k=self.k or k,
            measure=self.measure,
            records=self.record_start,
        )

    def embedded(self, broker: str, redis: str) -> Self:
        """The same on services of our own, which do not ask who comes in."""
        if self.kafka_security_protocol != "PLAINTEXT":
            raise SettingsError(
                "the embedded Kafka does not ask who comes in: unset "
                f"{variable('kafka_security_protocol')} and what goes with it"
            )
        return replace(self, broker=broker, redis=redis)

    @property
    def form(self) -> Format:
        """How values are written, whatever the preset."""
        return cast(Format, form_and_preset(self.input_format)[0])

    @property
    def tokens_topics(self) -> tuple[str, ...]:
        """The names in `tokens_topic`; none if that is a pattern."""
        if self.tokens_topic.startswith("^"):
            return ()
        return tuple(name.strip() for name in self.tokens_topic.split(","))

    @property
    def tokens_pattern(self) -> re.Pattern[str] | None:
        """The pattern of topics, which begins with `^` as in other Kafka clients."""
        return re.compile(self.tokens_topic) if self.tokens_topic.startswith("^") else None

    @property
    def broker_address(self) -> str:
        """host:port of the broker."""
        return urlsplit(self.broker).netloc

    def _check(self) -> None:
        for each in fields(self):
            if not _is_text(getattr(self, each.name)):
                raise SettingsError(f"{variable(each.name)} is not UTF-8")
        schemes = {"broker": ("kafka",), "redis": ("redis", "rediss", "unix")}
        for name, allowed in schemes.items():
            if not is_address(getattr(self, name), allowed):
                raise SettingsError(f"{variable(name)} must be {allowed[0]}:// and an address")
        for name, what in _NOT_EMPTY.items():
            if not getattr(self, name):
                raise SettingsError(f"{variable(name)} must be {what}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                named = ", ".join(filter(None, get_args(choices)))
                raise SettingsError(f"{variable(name)} must be one of {named}")
        Layout.of(self)
        check_format(self)
        if fault := prefix_fault(self.prefix):
            raise SettingsError(f"{variable('prefix')} {fault}")
        check_topics(self)
        check_start(self.start)
        try:
            record_start(self.record_start)
        except ValueError as error:
            raise SettingsError(f"{variable('record_start')}: {error}") from error
        check_kafka(self)
        check_registry(self)
        for name, limits in BOUNDS.items():
            check_number(name, getattr(self, name), limits)


# An empty host would mean every address there is.
_NOT_EMPTY = {"http_host": "an address of this machine", "group": "the name of a consumer group"}
_CHOICES: dict[str, Any] = {
    "key_format": KeyFormat,
    "encoding": Encoding,
    "isolation_level": IsolationLevel,
    "unreadable": Unreadable,
    "measure": Measure,
    "log_format": LogFormat,
    "dtype": Dtype,
    "kafka_security_protocol": Security,
    "kafka_sasl_mechanism": Mechanism,
}


def _is_text(value: Any) -> bool:
    """Whether it can be written as UTF-8; what a shell passes on may not be."""
    try:
        return not isinstance(value, str) or value.encode() is not None
    except UnicodeEncodeError:
        return False


def unknown_variables(env: Mapping[str, str] | None = None) -> list[str]:
    """A line for each variable that is named like a setting and is none."""
    return unknown(os.environ if env is None else env, [f.name for f in fields(Settings)])


def kafka_home(env: Mapping[str, str] | None = None) -> Path | None:
    """Where a Kafka distribution lies that may be started, if KAFKA_HOME says so."""
    home = (os.environ if env is None else env).get("KAFKA_HOME")
    return Path(home) if home else None
