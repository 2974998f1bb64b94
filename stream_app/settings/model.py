"""The model of the settings: one field each, with its default, its bounds and its description.

The docstring below a field is its description in docs/settings.md. A field's environment variable
is `XL3M_` and its name in capitals.
"""

import re
from collections.abc import Mapping
from typing import Any, Self, cast
from urllib.parse import urlsplit

from pydantic import Field, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stream_app.errors import SettingsError
from stream_app.formats.layout import Layout
from stream_app.formats.presets import form_and_preset
from stream_app.settings import checks, types
from stream_app.settings.faults import describe
from stream_app.settings.variables import PREFIX, SECRETS, VariablesSource, unknown, variable
from xl3m_core.method import DEFAULT_MEASURE, AnswerMode, Measure, Method


class Settings(BaseSettings):
    """Immutable and valid; `replace` returns a changed copy. `Settings(...)` takes defaults for
    what is not given, `Settings.from_env` the environment. Both raise SettingsError. Addresses and
    secrets stay out of `repr`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    # -- Kafka ---------------------------------------------------------------------------------

    broker: types.KafkaAddress = Field(default="kafka://127.0.0.1:9092", repr=False)
    """Kafka brokers: `kafka://host:port`, several with commas (`--broker`)."""
    kafka_security_protocol: types.SecurityProtocol = "PLAINTEXT"
    """Kafka's `security.protocol`."""
    kafka_sasl_mechanism: types.SaslMechanism = ""
    """Required with SASL."""
    kafka_sasl_username: str = ""
    """Required with SASL, except with `OAUTHBEARER`."""
    kafka_sasl_password: SecretStr = SecretStr("")
    """Required with SASL, except with `OAUTHBEARER`."""
    kafka_sasl_token_file: str = Field(default="", repr=False)
    """File with the token for `OAUTHBEARER`. It is read for each connection, so it may be
    renewed."""
    kafka_ssl_cafile: str = Field(default="", repr=False)
    """PEM file of the CAs that sign the brokers' certificates; empty: the system's."""
    kafka_ssl_certfile: str = Field(default="", repr=False)
    """PEM file of the client certificate, if brokers require one."""
    kafka_ssl_keyfile: str = Field(default="", repr=False)
    """PEM file of the certificate's key, unencrypted; empty: it is in the certificate's file."""
    group: str = Field(default="xl3m", min_length=1)
    """Consumer group. Workers of one group share the partitions (`worker --group`)."""
    session_timeout_seconds: float = Field(default=30.0, ge=6, le=150)
    """Session timeout: without a heartbeat for this long a worker's partitions are reassigned."""
    tokens_topic: str = "xl3m.tokens"
    """Topic of the input: a name, several with commas, or a regular expression that begins with
    `^`."""
    questions_topic: str = "xl3m.questions"
    """Topic on which standing questions are set."""
    queries_topic: str = "xl3m.queries"
    """Topic of queries."""
    answers_topic: str = "xl3m.answers"
    """Topic of answers to the queries from Kafka."""
    dead_letters_topic: str = "xl3m.dead-letters"
    """Topic of events that cannot be used, with the reason."""
    start: types.Start = "earliest"
    """Where to begin in a partition that was never read: `earliest`, `latest`, a time such as
    `2026-05-01T12:00:00Z`, or a duration before now such as `-30m`, `-1h`, `-2d`."""
    isolation_level: types.IsolationLevel = "read_committed"
    """Kafka's `isolation.level`. `read_uncommitted` also reads records of aborted transactions."""
    unreadable: types.Unreadable = "skip"
    """What to do with a damaged record or batch: `skip` sends it to the dead letters, `wait` stops
    the partition until an operator acts."""

    # -- Redis ---------------------------------------------------------------------------------

    redis: types.RedisAddress = Field(default="redis://127.0.0.1:6379/0", repr=False)
    """Redis server: `redis://host:port/db`, `rediss://user:password@...` for TLS, or `unix://`
    (`--redis`)."""
    prefix: types.RedisPrefix = "xl3m"
    """Prefix of all keys and channels. Groups that share a Redis server need one each."""

    # -- Model ---------------------------------------------------------------------------------

    model: str = ""
    """Folder, Hugging Face Hub id, GGUF file, `smollm2`, or `small`, the bundled model and the
    default: see [models](models.md) (`--model`)."""
    context_window: int = Field(default=0, ge=0, le=types.MAX_TOKENS)
    """Context window in tokens; 0: what the model's config says, which is also the maximum."""
    dtype: types.Dtype = ""
    """Type of the weights; empty: the faster of float32 and bfloat16, measured at start. In
    bfloat16 a score depends a little on the rows in its batch, in float32 it does not."""
    batch_tokens: int = Field(default=4096, ge=1, le=types.MAX_TOKENS)
    """Tokens in one forward pass. On CPU up to four run side by side, each up to a quarter larger.
    Lowered at start for a slow model."""
    prefix_cache_mb: int = Field(default=256, ge=0, le=1 << 24)
    """Size of the prompt prefix (KV) cache, in MB."""

    # -- Input ---------------------------------------------------------------------------------

    input_format: str = "lines"
    """Format of events: `lines`, `cri`, `json`, `msgpack`, or a preset for JSON: `ecs`,
    `fluentbit`, `docker`, `json:cri`, `kubernetes`, `otlp`, `log4j2`, `cloudwatch`, `journald`,
    `gelf`, `logstash`."""
    records_field: str = ""
    """JSON: path of the array of records, such as `logEvents[]`."""
    text: str = ""
    """JSON: template of a record's text, such as `{level} {host.name} {message}`; instead of
    `XL3M_TEXT_FIELD`."""
    text_field: str = ""
    """JSON: path of the text, such as `log.message`; with commas the first that exists. Empty: the
    preset's, else `text`."""
    time_field: str = ""
    """JSON and msgpack: path of a record's time. Empty: the preset's, else `time`."""
    key_field: str = ""
    """JSON and msgpack: path of the stream's name, or `header:NAME` for a Kafka header. Empty: the
    preset's, else the event's key."""
    key_format: types.KeyFormat = "utf8"
    """Format of an event's key. With `none` the stream is `TOPIC/PARTITION`."""
    encoding: types.Encoding = "strict"
    """What to do with bytes that are not UTF-8: refuse the event, or replace them with U+FFFD."""
    time_from_line: str = ""
    """Lines: how to find a line's own time: `auto`, a pattern of strptime, or a regular expression
    with a group. Empty: Kafka's timestamp."""
    record_start: types.RecordStart = "auto"
    """Where a record begins: `auto` joins stack traces and indented lines to the line before,
    `line` makes each line a record; or a regular expression found in first lines."""
    schema_registry: str = Field(default="", repr=False)
    """URL of a Confluent schema registry, for Avro, Protobuf and JSON Schema (`pip install
    xl3m-stream[registry]`)."""
    schema_registry_user: str = ""
    """User name for basic authentication."""
    schema_registry_password: SecretStr = SecretStr("")
    """Password for basic authentication."""
    schema_registry_ca: str = ""
    """PEM file of the CAs that sign the registry's certificate; empty: the system's."""

    # -- Scoring -------------------------------------------------------------------------------

    measure: types.MeasureName = "auto"
    """How relevance is measured. `auto`: what the model's config says (`xl3m_measure`; `entropy`
    for the bundled model), else `fused`. `entropy` of the answer's first token (as in the paper);
    `top_p`, the entropy of the nucleus (NBCE); `likelihood` of the question after the segment;
    `hybrid`, log p of the whole question less the entropy; `fused`, the likelihood and the share of
    the question's words that the segment has, in talk and prose averaged over neighbours."""
    answer: AnswerMode = "auto"
    """How an answer is made: `free`, written by the model; `extract`, the span of the text that the
    model finds most likely. `auto`: what the model's config says (`xl3m_answer`; `free` for the
    bundled model); else a model of less than 1B parameters extracts the answers to look-up
    questions from logs and tables, and all others are written."""
    k: int = Field(default=0, ge=0, le=types.MAX_TOKENS)
    """Segments in the key context; 0: what the model's config says (`xl3m_k`; 2 for the bundled
    model), else as many as fit, at most 8."""
    segment_tokens: int = Field(default=0, ge=0, le=types.MAX_TOKENS)
    """Tokens in a segment; 0: a quarter of what the window leaves (a k-th if k is above 4), at most
    512."""
    overlap_tokens: int = Field(default=-1, ge=-1, le=types.MAX_TOKENS)
    """Tokens a segment shares with the one before; -1: an eighth of a segment."""
    question_tokens: int = Field(default=0, ge=0, le=types.MAX_TOKENS)
    """Room for the question and its wording, a longer one is refused; 0: an eighth of the window,
    at most 128."""
    answer_tokens: int = Field(default=0, ge=0, le=types.MAX_TOKENS)
    """Room for the answer, a longer one is cut; 0: a sixteenth of the window, at most 64."""
    step_target_ms: int = Field(default=200, ge=1, le=3_600_000)
    """Target duration of a scoring step in milliseconds. Answers take priority over its batches."""
    on_lag: types.OnLag = "triage"
    """What to do with a topic that is faster than the model: `triage` reads on, and the model takes
    the segments with most of a question's words first and the rest in quiet times; `wait` pauses
    the partition."""
    max_lag_tokens: int = Field(default=65_536, ge=1, le=types.MAX_EXACT)
    """`wait`: pause a partition while more than this many of its ingested tokens are unscored. In
    both modes it bounds a partition's buffer."""
    query_deadline_seconds: float = Field(default=30.0, ge=0, le=types.MAX_DEADLINE)
    """How long a query may score before it is answered from what is scored (`ask --deadline`)."""
    first_answer_seconds: float = Field(default=3.0, ge=0, le=types.MAX_DEADLINE)
    """When a query through pub/sub gets a first answer from what is scored by then, if its stream
    takes longer to score; better ones follow until the answer. 0: only the answer."""

    # -- Retention -----------------------------------------------------------------------------

    retention_segments: int = Field(default=200_000, ge=1, le=types.MAX_EXACT)
    """Segments retained of a stream. Texts in a question's top-k outlive them."""
    retention_bytes: int = Field(default=67_108_864, ge=1, le=types.MAX_EXACT)
    """Bytes of segments retained of a stream."""
    adhoc_ttl_seconds: int = Field(default=3600, ge=1, le=types.YEAR)
    """How long the scores of an ad hoc question are kept; at least 90 s."""

    # -- Limits --------------------------------------------------------------------------------

    max_event_bytes: int = Field(default=1_048_576, ge=1, le=types.MAX_EVENT_BYTES)
    """A larger event is a dead letter."""
    max_batch_bytes: int = Field(default=67_108_864, ge=1, le=2**31 - 1)
    """A record batch that is larger when decompressed is a dead letter."""
    max_streams: int = Field(default=100_000, ge=1, le=types.MAX_EXACT)
    """Streams under one prefix. An event that would create one more is a dead letter."""
    max_standing_questions: int = Field(default=64, ge=1, le=types.MAX_EXACT)
    """Standing questions of a stream. One more is a dead letter."""
    max_adhoc_questions: int = Field(default=128, ge=1, le=types.MAX_EXACT)
    """Ad hoc questions of a stream whose scores are kept. One more evicts the least recently
    asked."""

    # -- Operations ----------------------------------------------------------------------------

    watchdog_seconds: float = Field(default=300.0, ge=1, le=types.WEEK)
    """A worker that holds events and makes no progress for this long exits."""
    shutdown_timeout_seconds: float = Field(default=25.0, ge=1, le=types.WEEK)
    """A worker exits within this time after it is asked to stop."""
    log_format: types.LogFormat = "text"
    """Format of a worker's log; `json`: one object per line."""
    http_host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which a worker serves `/metrics`, `/healthz` and `/readyz`."""
    http_port: int = Field(default=0, ge=0, le=65_535)
    """Port of these endpoints; 0: none. Workers on one machine need one each."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Settings from the environment and from overrides, which win unless they are None."""
        overrides = {name: value for name, value in overrides.items() if value is not None}
        return cls(**VariablesSource(cls, env)() | overrides)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: Any, init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`Settings(...)` does not read the environment; `from_env` does."""
        return (init_settings,)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_settings_errors(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return build(values)
        except ValidationError as error:
            raise SettingsError(describe(error, cls)) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        Layout.of(self)
        checks.check_format(self)
        checks.check_topics(self)
        checks.check_kafka_authentication(self)
        checks.check_schema_registry(self)
        return self

    def replace(self, **changes: Any) -> Self:
        """A copy with these changes, valid as well."""
        return type(self)(**dict(self) | changes)

    def to_env(self) -> dict[str, str]:
        """The variables from which a process reads these settings, secrets included; variables that
        name files of secrets are empty."""
        values = {variable(name): _plain(value) for name, value in self}
        return values | {f"{variable(name)}_FILE": "" for name in SECRETS}

    def embedded(self, broker: str, redis: str) -> Self:
        """A copy for embedded services, which have no authentication. Raises SettingsError."""
        if self.kafka_security_protocol != "PLAINTEXT":
            name = variable("kafka_security_protocol")
            raise SettingsError(
                f"the embedded Kafka has no authentication: unset {name} and the settings it needs"
            )
        return self.replace(broker=broker, redis=redis)

    def method(
        self, window: int, k: int | None = None, measure: Measure = DEFAULT_MEASURE
    ) -> Method:
        """The method on a model with this context window; k, measure: what the model's config
        recommends. Raises MethodError if the sizes do not fit the window."""
        return Method.fit(
            window,
            segment_tokens=self.segment_tokens or None,
            overlap_tokens=None if self.overlap_tokens < 0 else self.overlap_tokens,
            question_tokens=self.question_tokens or None,
            answer_tokens=self.answer_tokens or None,
            k=self.k or k,
            measure=measure if self.measure == "auto" else self.measure,
            records=self.record_start,
            answer=self.answer,
        )

    @property
    def form(self) -> types.Format:
        """How the value of an event is written; presets are JSON."""
        return cast(types.Format, form_and_preset(self.input_format)[0])

    @property
    def tokens_topics(self) -> tuple[str, ...]:
        """The names in `tokens_topic`; none if it is a regular expression."""
        if self.tokens_topic.startswith("^"):
            return ()
        return tuple(name.strip() for name in self.tokens_topic.split(","))

    @property
    def tokens_pattern(self) -> re.Pattern[str] | None:
        """The regular expression in `tokens_topic`; it begins with `^`, as in other clients."""
        return re.compile(self.tokens_topic) if self.tokens_topic.startswith("^") else None

    @property
    def broker_address(self) -> str:
        """host:port of the broker, several with commas."""
        return urlsplit(self.broker).netloc


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def unknown_variables(env: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each `XL3M_` variable that is no setting."""
    return unknown(Settings.model_fields, env)
