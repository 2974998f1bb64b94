"""Settings: every number and name a user may change, read once from the environment.

The only place that reads it. Each field is `XL3M_` and its name in capitals; what is not
given keeps the default below. Knows no part that uses them.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from stream_app.errors import SettingsError
from xl3m_core.method import Measure, Method

MAX_DEADLINE = 90.0
"""Seconds. Partitions cannot change hands while a query of theirs is open, so none is for long."""

Format = Literal["lines", "json", "msgpack"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen; derive a changed copy with `dataclasses.replace`. Addresses stay out of `repr`."""

    broker: str = field(default="kafka://127.0.0.1:9092", repr=False)
    redis: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    model: str = ""
    """A folder or a hub id; empty for the small model that comes along."""
    window: int = 0
    """The model's window in tokens; 0 takes what its config says."""
    group: str = "xl3m"
    """The Kafka consumer group; workers of one group share the partitions."""

    tokens_topic: str = "xl3m.tokens"
    questions_topic: str = "xl3m.questions"
    queries_topic: str = "xl3m.queries"
    answers_topic: str = "xl3m.answers"
    dead_letters_topic: str = "xl3m.dead-letters"

    format: Format = "lines"
    """How events of the tokens topic are written."""
    text_field: str = "text"
    time_field: str = "time"
    key_field: str = ""
    """For JSON: the fields that hold the text, its time, and the stream (else the event's key)."""

    segment_tokens: int = 0
    overlap_tokens: int = -1
    question_tokens: int = 0
    answer_tokens: int = 0
    k: int = 0
    """Sizes of the method; 0 (overlap: -1) derives them from the model's window."""
    measure: Measure = "entropy"

    batch_tokens: int = 4096
    """Tokens in one forward of the model."""
    compiled: bool = False
    """Score with `torch.compile`: a minute to begin with, then faster; needs a C++ compiler."""
    step_ms: int = 100
    """Queries and scoring take turns: how long, about, the model is at scoring without a break."""
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
    session_seconds: float = 30.0
    """The partitions of a worker that was silent for so long go to the others."""
    stall_seconds: float = 300.0
    """The worker ends itself when it holds events and gets nowhere for so long."""
    http_port: int = 0
    http_host: str = "127.0.0.1"
    """Where a worker serves /metrics, /healthz and /readyz; port 0: nowhere."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Settings from the environment, overridden by what is given and not None."""
        env = os.environ if env is None else env
        values = {
            f.name: _convert(name, env[name], f.default)
            for f in fields(cls)
            if (name := variable(f.name)) in env
        }
        settings = cls(**values | {name: v for name, v in given.items() if v is not None})
        settings._check()
        return settings

    def method(self, window: int) -> Method:
        """The method these settings ask for, on a model with that window."""
        return Method.fit(
            window,
            segment_tokens=self.segment_tokens or None,
            overlap_tokens=None if self.overlap_tokens < 0 else self.overlap_tokens,
            question_tokens=self.question_tokens or None,
            answer_tokens=self.answer_tokens or None,
            k=self.k or None,
            measure=self.measure,
        )

    @property
    def broker_address(self) -> str:
        """host:port of the broker."""
        return urlsplit(self.broker).netloc

    def _check(self) -> None:
        schemes = {"broker": ("kafka",), "redis": ("redis", "rediss", "unix")}
        for name, allowed in schemes.items():
            if not _is_address(getattr(self, name), allowed):
                raise SettingsError(f"{variable(name)} must be {allowed[0]}:// and an address")
        if not self.http_host:  # which would mean every address there is
            raise SettingsError(f"{variable('http_host')} must be an address of this machine")
        for name, choices in {"format": get_args(Format), "measure": get_args(Measure)}.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{variable(name)} must be one of {', '.join(choices)}")
        for name, least in _LEAST.items():
            if not least <= getattr(self, name) < math.inf:  # so that NaN is refused as well
                raise SettingsError(f"{variable(name)} must be at least {least}, and finite")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise SettingsError(f"{variable(name)} must be at most {most:.0f}")


_LEAST = dict.fromkeys(
    ("window", "warm_mb", "segment_tokens", "question_tokens", "answer_tokens", "k", "http_port"), 0
)
_LEAST |= dict.fromkeys(
    ("batch_tokens", "step_ms", "backlog_tokens", "log_segments", "log_bytes"), 1
)
_LEAST |= dict.fromkeys(("question_ttl", "max_event_bytes", "stall_seconds"), 1)
_LEAST |= {"overlap_tokens": -1, "query_deadline": 0, "session_seconds": 6}  # brokers refuse less
_MOST = {"query_deadline": MAX_DEADLINE, "session_seconds": 150.0, "http_port": 65_535}


_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def kafka_home(env: Mapping[str, str] | None = None) -> Path | None:
    """Where a Kafka distribution lies that may be started, if KAFKA_HOME says so."""
    home = (os.environ if env is None else env).get("KAFKA_HOME")
    return Path(home) if home else None


def _is_address(address: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(address)
        if "kafka" in schemes:  # there may be several, but nobody's password, which would be shown
            return parts.scheme in schemes and bool(parts.netloc) and "@" not in parts.netloc
        _ = parts.port  # what is none may be part of a password that is not percent-encoded
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or (parts.scheme == "unix" and parts.path))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"XL3M_{name.upper()}"


def _convert(name: str, text: str, default: Any) -> Any:
    """The variable's text as the type of its default."""
    try:
        if isinstance(default, bool):
            return _SWITCH[text.lower()]
        return type(default)(text)
    except KeyError:
        raise SettingsError(f"{name} must be one of {', '.join(_SWITCH)}, not {text!r}") from None
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[type(default)]
        raise SettingsError(f"{name} must be {kind}, not {text!r}") from None
