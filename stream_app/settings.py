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

from stream_app.errors import SettingsError
from stream_app.formats.layout import Layout
from stream_app.formats.presets import form_and_preset
from stream_app.variables import convert, or_file, variable, with_secrets
from xl3m_core.method import Measure, Method

MAX_DEADLINE = 90.0
"""Seconds. Partitions cannot change hands while a query of theirs is open, so none is for long."""

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

    kafka_security: Security = "PLAINTEXT"
    """How to get in, named as Kafka names it: SSL encrypts, SASL says who we are."""
    kafka_mechanism: Mechanism = ""
    kafka_user: str = ""
    kafka_password: str = field(default="", repr=False)
    kafka_token_file: str = field(default="", repr=False)
    """For OAUTHBEARER; it is read again for each connection, so it may be renewed."""
    kafka_ca: str = field(default="", repr=False)
    """PEM file of the authorities that may vouch for the broker; empty: the system's."""
    kafka_certificate: str = field(default="", repr=False)
    kafka_key: str = field(default="", repr=False)
    """PEM files that say who we are; a key may lie in the certificate's file."""

    model: str = ""
    """A folder or a hub id; empty for the small model that comes along."""
    window: int = 0
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

    format: str = "lines"
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
    """For `lines`: a pattern of the line that begins a record; `auto` knows stack traces, `line`
    makes every line a record."""
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
    step_ms: int = 200
    """How long, about, the model is at one step of scoring; answers go ahead of its batches."""
    warm_mb: int = 256
    """Memory for what the model has read of prompts that may come again."""
    backlog_tokens: int = 65_536
    """A partition waits while more than this of its streams is read but not scored for a current
    question."""
    log_segments: int = 200_000
    log_bytes: int = 67_108_864
    """What is retained of a stream; texts among the best of a question stay beyond it."""
    query_deadline: float = 30.0
    """Seconds a query may score for before it is answered from what is covered."""
    question_ttl: int = 3600
    """Seconds the scores of a question that was only asked once are kept."""
    max_event_bytes: int = 1_048_576
    max_batch_bytes: int = 67_108_864
    """Of a compressed batch of records when it is inflated."""
    max_streams: int = 100_000
    """In all of the Redis. What would make one more is a dead letter; those there are go on."""
    max_questions: int = 64
    """Standing ones of a stream; one more is a dead letter."""
    max_asked: int = 128
    """Questions asked once whose scores a stream keeps; one more takes the oldest one's place."""
    session_seconds: float = 30.0
    """The partitions of a worker that was silent for so long go to the others."""
    stall_seconds: float = 300.0
    """The worker ends itself when it holds events and gets nowhere for so long."""
    stop_seconds: float = 25.0
    """A worker that is told to stop has ended by then."""
    log_format: LogFormat = "text"
    """Of a worker's log."""
    http_port: int = 0
    http_host: str = "127.0.0.1"
    """Where a worker serves /metrics, /healthz and /readyz; port 0: nowhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Settings from the environment, overridden by what is given and not None."""
        env = with_secrets(os.environ if env is None else env)
        values = {
            f.name: convert(name, env[name], f.default)
            for f in fields(cls)
            if (name := variable(f.name)) in env
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
        )

    def embedded(self, broker: str, redis: str) -> Self:
        """The same on services of our own, which do not ask who comes in."""
        if self.kafka_security != "PLAINTEXT":
            raise SettingsError(
                "the embedded Kafka does not ask who comes in: unset "
                f"{variable('kafka_security')} and what goes with it"
            )
        return replace(self, broker=broker, redis=redis)

    @property
    def form(self) -> Format:
        """How values are written, whatever the preset."""
        return cast(Format, form_and_preset(self.format)[0])

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
            if not _is_address(getattr(self, name), allowed):
                raise SettingsError(f"{variable(name)} must be {allowed[0]}:// and an address")
        if not self.http_host:  # which would mean every address there is
            raise SettingsError(f"{variable('http_host')} must be an address of this machine")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                named = ", ".join(filter(None, get_args(choices)))
                raise SettingsError(f"{variable(name)} must be one of {named}")
        Layout.of(self)
        topics = [f.name for f in fields(self) if f.name.endswith("_topic")]
        for name in topics:
            if not _TOPIC.fullmatch(getattr(self, name)):
                raise SettingsError(f"{variable(name)} must be 1 to 249 of a-z, A-Z, 0-9, . _ -")
        if len({getattr(self, name) for name in topics}) < len(topics):  # its own dead letters
            raise SettingsError(f"{', '.join(map(variable, topics))} must differ from each other")
        self._check_kafka()
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < _BEYOND:  # so that NaN is refused as well
                raise SettingsError(f"{variable(name)} must be from {least} to 2^53")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise SettingsError(f"{variable(name)} must be at most {most:.0f}")

    def _check_kafka(self) -> None:
        """What is given to get in has to go together: less is no way in, more would do nothing."""
        named = {name: getattr(self, name) for name in ("kafka_security", "kafka_mechanism")}
        how = " and ".join(f"{variable(name)}={value}" for name, value in named.items() if value)
        for name, wanted in self._wanted().items():
            given = bool(getattr(self, name))
            if wanted and not given:
                raise SettingsError(f"{how} needs {variable(name)}{or_file(name)}: set it")
            if given and wanted is False:
                raise SettingsError(
                    f"{variable(name)} is of no use with {how}: unset it, or set "
                    f"{variable('kafka_security')} to what the broker wants"
                )

    def _wanted(self) -> dict[str, bool | None]:
        """Of each setting whether it has to be given; None where it may."""
        sasl, tls = self.kafka_security.startswith("SASL"), self.kafka_security.endswith("SSL")
        token = self.kafka_mechanism == "OAUTHBEARER"
        return {
            "kafka_mechanism": sasl,
            "kafka_user": sasl and not token,
            "kafka_password": sasl and not token,
            "kafka_token_file": sasl and token,
            "kafka_ca": None if tls else False,
            "kafka_key": None if tls else False,
            "kafka_certificate": (bool(self.kafka_key) or None) if tls else False,
        }


_CHOICES: dict[str, Any] = {
    "key_format": KeyFormat,
    "encoding": Encoding,
    "isolation_level": IsolationLevel,
    "unreadable": Unreadable,
    "measure": Measure,
    "log_format": LogFormat,
    "dtype": Dtype,
    "kafka_security": Security,
    "kafka_mechanism": Mechanism,
}
_LEAST = dict.fromkeys(
    ("window", "warm_mb", "segment_tokens", "question_tokens", "answer_tokens", "k", "http_port"), 0
)
_LEAST |= dict.fromkeys(
    ("batch_tokens", "step_ms", "backlog_tokens", "log_segments", "log_bytes"), 1
)
_LEAST |= dict.fromkeys(
    ("question_ttl", "max_event_bytes", "max_batch_bytes", "stall_seconds", "stop_seconds"), 1
)
_LEAST |= dict.fromkeys(("max_streams", "max_questions", "max_asked"), 1)
_LEAST |= {"overlap_tokens": -1, "query_deadline": 0, "session_seconds": 6}  # brokers refuse less
_MOST = {"query_deadline": MAX_DEADLINE, "session_seconds": 150.0, "http_port": 65_535}


# Beyond this neither Redis' scripts nor floats count exactly.
_BEYOND = 2**53
_TOPIC = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


def _is_text(value: Any) -> bool:
    """Whether it can be written as UTF-8; what a shell passes on may not be."""
    try:
        return not isinstance(value, str) or value.encode() is not None
    except UnicodeEncodeError:
        return False


def kafka_home(env: Mapping[str, str] | None = None) -> Path | None:
    """Where a Kafka distribution lies that may be started, if KAFKA_HOME says so."""
    home = (os.environ if env is None else env).get("KAFKA_HOME")
    return Path(home) if home else None


def _is_address(address: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(address)
        if "kafka" in schemes:  # there may be several, but nobody's password, which would be shown
            hosts = [urlsplit(f"//{host}") for host in parts.netloc.split(",")]
            named = all(host.hostname and (host.port or 1) for host in hosts)
            return parts.scheme in schemes and named and "@" not in parts.netloc
        _ = parts.port  # what is none may be part of a password that is not percent-encoded
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or (parts.scheme == "unix" and parts.path))
