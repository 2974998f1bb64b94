"""A Kafka and a Redis with TLS and users.

Certificates are made by the `openssl` on the PATH, for this run only. Both servers listen on
loopback. The passwords are unique words, so that a test can search for them in logs and output.
"""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from stream_app.embedded import kafka_server, services
from stream_app.embedded.process import free_port, running

USER = "reader"
PASSWORD = "hunter2-of-the-reader"
REDIS_PASSWORD = "hunter2-of-redis"
HOST = "127.0.0.1"
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Certificates:
    """PEM files: a CA, a server and a client certificate signed by it, and another CA."""

    ca: Path
    server: Path
    client: Path
    key: Path
    stranger: Path


def certificates(folder: Path) -> Certificates:
    """New certificates; the server's file has its key as well."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, to make certificates")
    folder.mkdir(parents=True, exist_ok=True)
    ca, stranger = (_authority(folder, name) for name in ("ca", "stranger"))
    client, key = _vouched_for(folder, ca, "client")
    server, server_key = _vouched_for(folder, ca, "server")
    server.write_text(server_key.read_text() + server.read_text())
    return Certificates(ca, server, client, key, stranger)


def _authority(folder: Path, name: str) -> Path:
    openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
        f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
    )  # fmt: skip
    return folder / f"{name}.pem"


def _vouched_for(folder: Path, ca: Path, name: str) -> tuple[Path, Path]:
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", ca.name, "-CAkey", f"{ca.stem}.key",
        "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem",
    )  # fmt: skip
    return folder / f"{name}.pem", folder / f"{name}.key"


def openssl(folder: Path, *words: str) -> None:
    """Run openssl in the folder."""
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def token(user: str = USER) -> str:
    """An unsigned token, which Kafka accepts by default; valid for an hour."""
    now = int(time.time())
    parts = {"alg": "none"}, {"sub": user, "iat": now, "exp": now + 3600}
    texts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts)
    return ".".join(text.rstrip("=") for text in texts) + "."


@dataclass(frozen=True)
class Kafka:
    """A broker. listeners: security protocol -> URL."""

    listeners: dict[str, str]
    certificates: Certificates


@contextmanager
def kafka(home: Path, folder: Path) -> Iterator[Kafka]:
    """A one-node Kafka with SASL, SASL over TLS, and TLS with client certificates."""
    made, plain = certificates(folder / "certificates"), free_port()
    listeners = {"SASL_SSL": free_port(), "SSL": free_port(), "SASL_PLAINTEXT": free_port()}
    stores = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": made.server,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": made.ca,
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    }
    scram = f'[name="{USER}",password="{PASSWORD}"]'
    users = [f"{mechanism}={scram}" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
    properties = stores | _login_modules("sasl_ssl") | _login_modules("sasl_plaintext")
    ports = {"listeners": listeners, "properties": properties}
    with kafka_server.node(home, folder, partitions=2, port=plain, users=users, **ports):  # type: ignore[arg-type]
        yield Kafka({name: f"kafka://{HOST}:{port}" for name, port in listeners.items()}, made)


def _login_modules(listener: str) -> dict[str, object]:
    scram = f"{_LOGIN}.scram.ScramLoginModule required;"
    modules = {
        "plain": f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
        "scram-sha-256": scram,
        "scram-sha-512": scram,
        "oauthbearer": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
    }
    return {f"listener.name.{listener}.{name}.sasl.jaas.config": to for name, to in modules.items()}


@dataclass(frozen=True)
class SecuredRedis:
    """The URLs of its users; `admin` has all rights."""

    users: dict[str, str]
    certificates: Certificates


@contextmanager
def redis(folder: Path, rights: dict[str, str]) -> Iterator[SecuredRedis]:
    """A Redis with TLS only, these users, and an admin. rights: ACL rules by user."""
    servers = services.redis_servers()
    server = max(servers, key=lambda path: servers[path], default="")
    if servers.get(server, ()) < (7,):
        found = f"the newest at hand is {server}" if server else "there is none"
        pytest.skip(f"needs a redis-server of version 7 or later, with TLS: {found}")
    made, port = certificates(folder / "certificates"), free_port()
    rights = rights | {"admin": "~* &* +@all"}
    lines = [f"user {name} on >{REDIS_PASSWORD} {may}" for name, may in rights.items()]
    acl = folder / "users.acl"
    acl.write_text("\n".join(["user default off", *lines, ""]))
    command = [server, "--port", "0", "--tls-port", str(port), "--bind", HOST]
    command += ["--tls-cert-file", str(made.server), "--tls-key-file", str(made.server)]
    command += ["--tls-ca-cert-file", str(made.ca), "--tls-auth-clients", "no"]
    command += ["--aclfile", str(acl), "--dir", str(folder), "--save", ""]

    where = f"{HOST}:{port}/0?ssl_ca_certs={made.ca}"
    users = {name: f"rediss://{name}:{REDIS_PASSWORD}@{where}" for name in rights}
    with running(command, folder / "redis.log", lambda: _answers(users["admin"])):
        yield SecuredRedis(users, made)


def _answers(url: str) -> bool:
    try:
        with Redis.from_url(url, retry=None) as client:
            return bool(client.ping())
    except RedisError:
        return False
