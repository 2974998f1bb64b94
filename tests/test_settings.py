"""Settings: every field can be set from the environment, and what is wrong is named by it."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from stream_app.errors import SettingsError
from stream_app.settings import Settings, kafka_home
from stream_app.variables import variable

CHOSEN = {"broker": "kafka://b:1", "redis": "redis://r:2/3", "format": "json", "measure": "hybrid"}
CHOSEN |= {"kafka_security": "SSL", "kafka_mechanism": "SCRAM-SHA-256"}
LOGIN = {"kafka_security": "SASL_SSL", "kafka_user": "me", "kafka_password": "secret"}
PLAIN = LOGIN | {"kafka_mechanism": "PLAIN"}
NEEDS: dict[str, dict[str, str]] = {
    "kafka_mechanism": LOGIN,
    "kafka_user": PLAIN,
    "kafka_password": PLAIN,
    "kafka_token_file": {"kafka_security": "SASL_SSL", "kafka_mechanism": "OAUTHBEARER"},
    "kafka_ca": {"kafka_security": "SSL"},
    "kafka_certificate": {"kafka_security": "SSL"},
    "kafka_key": {"kafka_security": "SSL", "kafka_certificate": "ours.pem"},
}
CHOSEN |= {"key_format": "hex", "encoding": "replace", "unreadable": "wait"}
CHOSEN |= {"isolation_level": "read_uncommitted", "start": "latest", "record_start": "line"}
CHOSEN |= {"log_format": "json", "dtype": "float32"}
CHOSEN |= {"text": "{level} {message}", "time_from_line": "auto"}


def another(name: str, default: Any) -> Any:
    """A value the field does not have by default."""
    return CHOSEN.get(name, f"{default}x" if isinstance(default, str) else default + 7)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: str(field.name))
def test_every_field_is_read_from_its_variable(field: Any) -> None:
    value = another(field.name, field.default)
    given = NEEDS.get(field.name, {}) | {field.name: value}
    settings = Settings.from_env({f"XL3M_{name.upper()}": str(v) for name, v in given.items()})
    assert settings == replace(Settings(), **given)
    assert getattr(settings, field.name) != field.default


NUMBERS = [f.name for f in fields(Settings) if isinstance(f.default, int | float)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["", "many", "1,5", "nan", "-2"])
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
        ("kafka_security", "sasl_ssl"),
        ("kafka_mechanism", "GSSAPI"),
        ("redis", "http://localhost"),
        ("redis", ""),
        ("format", "yaml"),
        ("log_format", "xml"),
        ("stop_seconds", "0"),
        ("measure", "loudness"),
        ("batch_tokens", "0"),
        ("backlog_tokens", "0"),
        ("log_segments", "0"),
        ("log_bytes", "0"),
        ("max_event_bytes", "0"),
        ("question_ttl", "0"),
        ("stall_seconds", "0"),
        ("query_deadline", "inf"),
        ("http_port", "65536"),
        ("http_host", ""),
        ("broker", "kafka://host:port"),
        ("broker", "kafka://:9092"),
        ("tokens_topic", ""),
        ("tokens_topic", "a topic"),
        ("tokens_topic", "xl3m.answers"),
        ("dead_letters_topic", "x" * 250),
        ("log_bytes", str(2**53)),
        ("group", "\udcff"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable(name)):
        Settings.from_env({variable(name): text})


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
    with pytest.raises(SettingsError, match="XL3M_FORMAT"):
        Settings.from_env({}, format="yaml")


def test_other_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XL3M_K", "4")
    assert Settings.from_env() == Settings(k=4)
    assert Settings.from_env({"HOME": "/", "K": "9"}) == Settings()


def test_sizes_left_open_follow_from_the_window() -> None:
    assert Settings().method(1024) == replace(Settings(), k=0).method(1024)
    method = Settings(segment_tokens=64, overlap_tokens=0, k=2, measure="likelihood").method(512)
    assert (method.segment_tokens, method.overlap_tokens, method.k) == (64, 0, 2)
    assert method.measure == "likelihood"


def test_settings_are_frozen_and_know_the_brokers_address() -> None:
    settings = Settings(broker="kafka://a:1,b:2")
    assert settings.broker_address == "a:1,b:2"
    with pytest.raises(FrozenInstanceError):
        settings.k = 3  # type: ignore[misc]


def test_kafka_home_is_a_folder_or_nothing() -> None:
    assert kafka_home({}) is None and kafka_home({"KAFKA_HOME": ""}) is None
    assert str(kafka_home({"KAFKA_HOME": "/opt/kafka"})) == "/opt/kafka"
