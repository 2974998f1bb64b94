"""Authentication: settings reach aiokafka and Faust alike; an unusable file is named."""

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from pydantic import SecretStr

from stream_app.errors import SettingsError
from stream_app.kafka import auth, connection
from stream_app.settings import Settings
from stream_app.settings.variables import SECRETS, variable
from tests.support import secured

LOGIN = {"kafka_sasl_username": "me", "kafka_sasl_password": "hunter2"}
SSL = {"kafka_security_protocol": "SSL"}
OAUTH = {"kafka_sasl_mechanism": "OAUTHBEARER"}
SCRAM = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "SCRAM-SHA-512"} | LOGIN
REGISTRY = {"schema_registry": "https://there", "schema_registry_user": "me"}
REGISTRY |= {"schema_registry_password": "hunter2"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> secured.Certificates:
    """Certificates of a CA, a client and a stranger."""
    return secured.certificates(tmp_path_factory.mktemp("certificates"))


def settings(**given: Any) -> Settings:
    return Settings.from_env({}, **given)


# -- both forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("security", "mechanism", "kind"),
    [
        ("PLAINTEXT", "", type(None)),
        ("SSL", "", SSLCredentials),
        ("SASL_PLAINTEXT", "PLAIN", SASLCredentials),
        ("SASL_SSL", "SCRAM-SHA-256", SASLCredentials),
        ("SASL_SSL", "SCRAM-SHA-512", SASLCredentials),
        ("SASL_PLAINTEXT", "OAUTHBEARER", OAuthCredentials),
        ("SASL_SSL", "OAUTHBEARER", OAuthCredentials),
    ],
)
async def test_faust_gets_the_same_options_as_aiokafka(
    security: str, mechanism: str, kind: type, certificates: secured.Certificates, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a-token\n")
    given: dict[str, Any] = {"kafka_security_protocol": security, "kafka_sasl_mechanism": mechanism}
    if mechanism == "OAUTHBEARER":
        given["kafka_sasl_token_file"] = str(tmp_path / "token")
    elif mechanism:
        given |= LOGIN
    if security.endswith("SSL"):
        given["kafka_ssl_cafile"] = str(certificates.ca)
    options = auth.kafka(settings(**given))
    credentials = auth.faust_credentials(settings(**given))
    assert type(credentials) is kind
    faust_options = dict(credentials_to_aiokafka_auth(credentials)) if credentials else {}
    assert options.pop("bootstrap_servers") == "127.0.0.1:9092"
    assert options.pop("security_protocol") == faust_options.pop("security_protocol", "PLAINTEXT")
    for known in (options, faust_options):
        context = known.pop("ssl_context", None)
        assert (context is not None) == security.endswith("SSL")
        assert context is None or (context.check_hostname, context.verify_mode) == (
            True,
            ssl.CERT_REQUIRED,
        )
        if provider := known.pop("sasl_oauth_token_provider", None):
            assert await provider.token() == "a-token"
    assert {k: v for k, v in options.items() if v} == {k: v for k, v in faust_options.items() if v}
    assert "hunter2" not in repr(credentials)


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (LOGIN, "kafka_sasl_username"),
        ({"kafka_ssl_cafile": "ca.pem"}, "kafka_ssl_cafile"),
        ({"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN"} | LOGIN
         | {"kafka_ssl_cafile": "ca.pem"}, "kafka_ssl_cafile"),
        ({"kafka_security_protocol": "SSL"} | LOGIN, "kafka_sasl_username"),
        (SSL | {"kafka_sasl_mechanism": "PLAIN"}, "kafka_sasl_mechanism"),
        ({"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": "key.pem"}, "kafka_ssl_certfile"),
        ({"kafka_security_protocol": "SASL_SSL"}, "kafka_sasl_mechanism"),
        ({"kafka_security_protocol": "TLS"}, "kafka_security_protocol"),
        (SCRAM | {"kafka_sasl_mechanism": "GSSAPI"}, "kafka_sasl_mechanism"),
        (SCRAM | {"kafka_sasl_username": ""}, "kafka_sasl_username"),
        (SCRAM | {"kafka_sasl_password": ""}, "kafka_sasl_password"),
        (SCRAM | {"kafka_sasl_token_file": "token"}, "kafka_sasl_token_file"),
        ({"kafka_security_protocol": "SASL_SSL"} | OAUTH, "kafka_sasl_token_file"),
        (SCRAM | OAUTH | {"kafka_sasl_token_file": "token"}, "kafka_sasl_username"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_name(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=rf"{variable(named)}\b") as refused:
        settings(**given)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_lie_in_a_file(name: str, tmp_path: Path) -> None:
    secret = "rediss://me:hunter2@there:1/0" if name == "redis" else " hunter2 "
    others = {variable(k): v for k, v in (SCRAM | REGISTRY).items() if k != name}
    path = tmp_path / "secret"
    path.write_text(secret + "\n")
    env = others | {f"{variable(name)}_FILE": str(path)}
    content = getattr(Settings.from_env(env), name)
    assert (content if isinstance(content, str) else content.get_secret_value()) == secret
    assert Settings.from_env(env | {variable(name): ""}) == Settings.from_env(env)
    given = {"redis": "redis://given:1"}
    assert Settings.from_env(env, **given).redis == "redis://given:1"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_a_file_without_a_secret_is_named_by_its_variable(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "hunter2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{variable(name)}_FILE") as refused:
        Settings.from_env({f"{variable(name)}_FILE": str(path)})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_two_places_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    env = {variable(name): "hunter2", f"{variable(name)}_FILE": str(tmp_path / "secret")}
    with pytest.raises(SettingsError, match="both") as refused:
        Settings.from_env(env)
    assert "hunter2" not in str(refused.value)


# -- files -----------------------------------------------------------------------------------


def test_files_that_are_no_certificates_are_named(
    certificates: secured.Certificates, tmp_path: Path
) -> None:
    (tmp_path / "none.pem").write_text("none")
    for path in (str(tmp_path / "none.pem"), str(tmp_path / "hunter2")):
        tls = {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": str(certificates.ca)}
        for wrong in ("kafka_ssl_cafile", "kafka_ssl_certfile"):
            with pytest.raises(SettingsError, match=variable(wrong)) as refused:
                auth.kafka(settings(**tls | {wrong: path}))
            assert "hunter2" not in str(refused.value)


def test_an_encrypted_key_is_refused_and_not_asked_about(
    certificates: secured.Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "encrypted.key"
    secured.openssl(tmp_path, "rsa", "-aes256", "-passout", "pass:hunter2",
                    "-in", str(certificates.key), "-out", str(path))  # fmt: skip
    files = {"kafka_ssl_certfile": str(certificates.client), "kafka_ssl_keyfile": str(path)}
    with pytest.raises(SettingsError, match="not encrypted"):
        auth.kafka(settings(kafka_security_protocol="SSL", **files))


@pytest.mark.parametrize("content", [None, b"", b" \n", "tökén".encode()])
async def test_a_token_file_without_a_token_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "hunter2"
    path.write_text("a-token")
    how = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}
    provider = auth.TokenFile(str(path))
    assert await provider.token() == "a-token"
    path.unlink() if content is None else path.write_bytes(content)
    for call in (
        provider.read,
        lambda: auth.kafka(settings(**how, kafka_sasl_token_file=str(path))),
    ):
        with pytest.raises((OSError, SettingsError), match="XL3M_KAFKA_SASL_TOKEN_FILE") as refused:
            call()
        assert "hunter2" not in str(refused.value)


# -- messages ----------------------------------------------------------------------------


def test_what_a_broker_says_is_not_repeated() -> None:
    for error in (SaslAuthenticationFailed("token hunter2"), KafkaConnectionError("hunter2")):
        assert "hunter2" not in str(connection.unreachable(settings(**SCRAM), error))


def test_requests_are_not_logged_and_all_else_is(caplog: pytest.LogCaptureFixture) -> None:
    auth.kafka(settings())
    log = logging.getLogger("aiokafka.conn")
    with caplog.at_level(logging.DEBUG):
        log.debug("Request to %s: %s", "here", "hunter2")
        log.info("let in")
    assert "hunter2" not in caplog.text and "let in" in caplog.text


def test_every_secret_stays_out_of_repr() -> None:
    fields = Settings.model_fields.items()
    hidden = {name for name, f in fields if not f.repr or f.annotation is SecretStr}
    marked: Any = {
        name: SecretStr("hunter2") if f.annotation is SecretStr else "hunter2"
        for name, f in fields
        if name in hidden
    }
    assert {"broker", "redis", "kafka_sasl_password", "kafka_sasl_token_file"} <= hidden
    assert "hunter2" not in repr(Settings.model_construct(**marked))


def test_embedded_services_need_no_authentication() -> None:
    urls: Any = {"broker": "kafka://ours:1", "redis": "redis://ours:2"}
    assert Settings(k=3).embedded(**urls) == Settings(k=3, **urls)
    with pytest.raises(SettingsError, match="unset XL3M_KAFKA_SECURITY_PROTOCOL"):
        settings(**SCRAM).embedded(**urls)
