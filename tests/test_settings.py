"""Settings: every field can be set from the environment, and what is wrong is named by it."""

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.asyncio import Redis

from stream_app.errors import SettingsError
from stream_app.kafka.faust_app import create_faust
from stream_app.runtime.watchdog import Watchdog
from stream_app.settings import Settings, kafka_home, unknown_variables
from stream_app.settings.faults import bounds
from stream_app.settings.types import MeasureName
from stream_app.settings.variables import OTHER_VARIABLES, SECRETS, variable
from stream_app.store.state import QuestionRecord
from stream_app.store.store import StreamStore
from xl3m_core.errors import MethodError
from xl3m_core.method import AUTO_MEASURE, MEASURES

CHOSEN = {
    "broker": "kafka://b:1",
    "redis": "redis://r:2/3",
    "input_format": "json",
    "measure": "hybrid",
    "answer": "extract",
}
CHOSEN |= {"kafka_security_protocol": "SSL", "kafka_sasl_mechanism": "SCRAM-SHA-256"}
LOGIN = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_username": "me",
    "kafka_sasl_password": "secret",
}
PLAIN = LOGIN | {"kafka_sasl_mechanism": "PLAIN"}
NEEDS: dict[str, dict[str, str]] = {
    "kafka_sasl_mechanism": LOGIN,
    "kafka_sasl_username": PLAIN,
    "kafka_sasl_password": PLAIN,
    "kafka_sasl_token_file": {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "OAUTHBEARER",
    },
    "kafka_ssl_cafile": {"kafka_security_protocol": "SSL"},
    "kafka_ssl_certfile": {"kafka_security_protocol": "SSL"},
    "kafka_ssl_keyfile": {"kafka_security_protocol": "SSL", "kafka_ssl_certfile": "ours.pem"},
}
CHOSEN |= {"key_format": "hex", "encoding": "replace", "unreadable": "wait"}
CHOSEN |= {"isolation_level": "read_uncommitted", "start": "latest", "record_start": "line"}
CHOSEN |= {
    "log_format": "json",
    "on_lag": "wait",
    "dtype": "float32",
    "schema_registry": "https://r:8081",
}
NEEDS |= {
    "schema_registry_user": {"schema_registry": "http://r", "schema_registry_password": "secret"},
    "schema_registry_password": {"schema_registry": "http://r", "schema_registry_user": "me"},
    "schema_registry_ca": {"schema_registry": "https://r"},
}
CHOSEN |= {"text": "{level} {message}", "time_from_line": "auto"}
NEEDS |= {
    name: {"input_format": "json"}
    for name in ("records_field", "text", "text_field", "time_field", "key_field")
}


FIELDS = Settings.model_fields


def another(name: str, default: Any) -> Any:
    """A value other than the default."""
    return CHOSEN.get(name, default + 7 if isinstance(default, int | float) else f"{default}x")


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_read_from_its_variable(name: str) -> None:
    default = FIELDS[name].default
    given: dict[str, Any] = NEEDS.get(name, {}) | {name: another(name, default)}
    settings = Settings.from_env({f"XL3M_{name.upper()}": str(v) for name, v in given.items()})
    assert settings == Settings().replace(**given)
    assert getattr(settings, name) != default


@pytest.mark.parametrize("name", FIELDS)
def test_a_process_started_with_the_variables_has_the_same_settings(name: str) -> None:
    given: dict[str, Any] = NEEDS.get(name, {}) | {name: another(name, FIELDS[name].default)}
    assert Settings.from_env(Settings(**given).to_env()) == Settings(**given)


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"text_field": "message"}, "XL3M_TEXT_FIELD has no effect with XL3M_INPUT_FORMAT=lines"),
        ({"key_field": "host"}, "XL3M_KEY_FIELD.*goes with json, msgpack"),
        ({"input_format": "cri", "time_from_line": "auto"}, "XL3M_TIME_FROM_LINE.*=cri"),
        ({"input_format": "json:ecs", "time_from_line": "auto"}, "XL3M_TIME_FROM_LINE.*=json:ecs"),
        ({"input_format": "msgpack", "text_field": "message"}, "XL3M_TEXT_FIELD.*=msgpack"),
    ],
)
def test_what_the_format_has_no_use_for_is_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_env({}, **given)
    assert Settings.from_env({}, key_field="header:tenant").key_field


NUMBERS = [name for name, field in FIELDS.items() if isinstance(field.default, int | float)]
BOUNDS = {name: limits for name, field in FIELDS.items() if (limits := bounds(field))}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", [" ", "many", "1,5", "nan", "-2"])
def test_a_number_that_is_none_is_named_by_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        Settings.from_env({variable(name): text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broker", "localhost:9092"),
        ("broker", "kafka://"),
        ("broker", "kafka://[::1"),
        ("broker", "kafka://user:word@host:9092"),
        ("kafka_security_protocol", "sasl_ssl"),
        ("kafka_sasl_mechanism", "GSSAPI"),
        ("redis", "http://localhost"),
        ("input_format", "yaml"),
        ("log_format", "xml"),
        ("on_lag", "stop"),
        ("shutdown_timeout_seconds", "0"),
        ("measure", "loudness"),
        ("batch_tokens", "0"),
        ("max_lag_tokens", "0"),
        ("retention_segments", "0"),
        ("retention_bytes", "0"),
        ("max_event_bytes", "0"),
        ("adhoc_ttl_seconds", "0"),
        ("watchdog_seconds", "0"),
        ("query_deadline_seconds", "inf"),
        ("http_port", "65536"),
        ("broker", "kafka://host:port"),
        ("broker", "kafka://:9092"),
        ("tokens_topic", "a topic"),
        ("tokens_topic", "xl3m.answers"),
        ("dead_letters_topic", "x" * 250),
        ("retention_bytes", str(2**53)),
        ("group", "\udcff"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        Settings.from_env({variable(name): text})


@pytest.mark.parametrize("name", FIELDS)
def test_an_empty_variable_is_as_one_that_is_not_set(name: str) -> None:
    assert Settings.from_env({variable(name): ""}) == Settings()


@pytest.mark.parametrize("name", ["group", "redis", "tokens_topic", "http_host"])
def test_an_empty_option_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        Settings.from_env({}, **{name: ""})


def test_every_number_has_bounds_and_the_default_lies_within() -> None:
    assert BOUNDS.keys() == set(NUMBERS)
    for name, (least, most) in BOUNDS.items():
        assert least <= getattr(Settings(), name) <= most


@given(st.sampled_from(sorted(BOUNDS)), st.integers(-(2**63), 2**63) | st.floats())
def test_what_is_beyond_the_bounds_is_refused_and_what_is_within_is_taken(
    name: str, value: float
) -> None:
    kind, (least, most) = type(getattr(Settings(), name)), BOUNDS[name]
    if kind is int and not isinstance(value, int):
        return
    if least <= value <= most:
        assert getattr(Settings.from_env({}, **{name: value}), name) == value
    else:
        with pytest.raises(SettingsError, match=variable(name)):
            Settings.from_env({}, **{name: value})


EDGES = [(name, type(getattr(Settings(), name))(edge)) for name in BOUNDS for edge in BOUNDS[name]]


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.parametrize(("name", "value"), EDGES)
async def test_a_value_that_is_taken_can_be_used(
    name: str, value: Any, redis_client: Redis, fresh: Callable[[str], str]
) -> None:
    """By what would fail: Kafka's sizes, timers of threads and of the interpreter, Redis' clock."""
    settings = Settings.from_env({}, **{name: value})
    app: Any = create_faust(settings)
    sizes = (app.conf.consumer_max_fetch_size, app.conf.producer_max_request_size)
    assert all(0 < size < 2**31 for size in sizes)
    store = StreamStore.from_settings(settings, redis_client)
    stream, now = fresh("stream"), await store.questions.now()
    record = QuestionRecord("q?", now + settings.adhoc_ttl_seconds, now)
    await store.questions.ask(stream, "q", record, most=settings.max_adhoc_questions)
    assert await store.scored_range(stream, "q") is not None
    watchdog = Watchdog(settings.watchdog_seconds, progress=lambda: 0, busy=lambda: False)
    running = asyncio.create_task(watchdog.run())
    await asyncio.sleep(0)  # it has set the interpreter's timer by now
    assert settings.shutdown_timeout_seconds <= threading.TIMEOUT_MAX
    assert not running.done()
    running.cancel()
    try:
        settings.method(512)
    except MethodError as error:
        assert "window" in str(error) or "must be" in str(error)


# -- typing errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("XL3M_TEXT_FEILD", "XL3M_TEXT_FEILD is not a setting: XL3M_TEXT_FIELD?"),
        ("XL3M_BROKERS", "XL3M_BROKERS is not a setting: XL3M_BROKER?"),
        ("xl3m_group", "xl3m_group is not a setting: XL3M_GROUP?"),
        ("XL3M_REDIS_FLIE", "XL3M_REDIS_FLIE is not a setting: XL3M_REDIS_FILE?"),
        ("XL3M_QQQQ", "XL3M_QQQQ is not a setting; docs/settings.md lists them"),
    ],
)
def test_a_mistyped_variable_is_named_with_what_is_meant(name: str, line: str) -> None:
    assert unknown_variables({name: "hunter2", "HOME": "/"}) == [line]


def test_every_variable_that_the_code_names_is_a_setting() -> None:
    known = {*map(variable, FIELDS), *(f"{variable(name)}_FILE" for name in SECRETS)}
    for path in (Path(__file__).parents[1] / "stream_app").rglob("*.py"):
        named = set(re.findall(r"\bXL3M_[A-Z_]*[A-Z]\b(?!_)", path.read_text()))
        assert named <= known | {*OTHER_VARIABLES}, path


def test_variables_that_mean_something_are_not_named() -> None:
    known = [*map(variable, FIELDS)]
    known += [f"{variable(name)}_FILE" for name in SECRETS] + list(OTHER_VARIABLES)
    # What Kubernetes tells of services called xl3m and xl3m-http.
    known += ["XL3M_SERVICE_HOST", "XL3M_SERVICE_PORT", "XL3M_SERVICE_PORT_METRICS"]
    known += ["XL3M_HTTP_SERVICE_HOST", "XL3M_PORT_8080_TCP", "XL3M_HTTP_PORT_80_TCP_ADDR"]
    assert unknown_variables(dict.fromkeys(known, "x")) == []
    assert unknown_variables({"XL3M_PORT": "tcp://10.0.0.1:80"}) == []
    assert unknown_variables({"XL3M_PORT": "8080"}) != []


def test_addresses_stay_out_of_repr_and_out_of_errors() -> None:
    secret = "redis://user:secret@host"
    assert "secret" not in repr(Settings.from_env({"XL3M_REDIS": secret}))
    for wrong in (secret.replace("redis", "http"), secret.replace("@", "/@")):
        with pytest.raises(SettingsError) as refused:
            Settings.from_env({"XL3M_REDIS": wrong})
        assert "secret" not in str(refused.value)


def test_what_is_given_wins_and_none_is_not_given() -> None:
    env = {"XL3M_K": "5", "XL3M_GROUP": "theirs"}
    settings = Settings.from_env(env, k=6, group=None, model=None)
    assert (settings.k, settings.group, settings.model) == (6, "theirs", "")


def test_what_is_given_is_checked_too() -> None:
    with pytest.raises(SettingsError, match="XL3M_INPUT_FORMAT"):
        Settings.from_env({}, input_format="yaml")


def test_other_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XL3M_K", "4")
    assert Settings.from_env() == Settings(k=4)
    assert Settings.from_env({"HOME": "/", "K": "9"}) == Settings()


def test_sizes_left_open_follow_from_the_window() -> None:
    assert Settings().method(1024) == Settings(k=0).method(1024)
    method = Settings(segment_tokens=64, overlap_tokens=0, k=2, measure="likelihood").method(512)
    assert (method.segment_tokens, method.overlap_tokens, method.k) == (64, 0, 2)
    assert method.measure == "likelihood"


def test_settings_are_frozen_and_know_the_brokers_address() -> None:
    settings = Settings(broker="kafka://a:1,b:2")
    assert settings.broker_address == "a:1,b:2"
    with pytest.raises(ValidationError, match="frozen"):
        settings.k = 3


def test_kafka_home_is_a_folder_or_nothing() -> None:
    assert kafka_home({}) is None and kafka_home({"KAFKA_HOME": ""}) is None
    assert str(kafka_home({"KAFKA_HOME": "/opt/kafka"})) == "/opt/kafka"


def test_every_measure_can_be_set() -> None:
    assert get_args(MeasureName) == (AUTO_MEASURE, *MEASURES)
    with pytest.raises(SettingsError, match="must be one of auto, entropy"):
        Settings.from_env({"XL3M_MEASURE": "best"})
