"""Kafka and Redis with authentication: workers and commands connect with the right credentials, and
only with those.

Redis users have the rights that SECURITY.md lists. All output of a worker and of the commands, at
debug level, is searched for secrets.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from stream_app.cli.doctor import kafka_findings
from stream_app.client import client
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service
from stream_app.events import decode
from stream_app.scoring.prefilter import Prefilter
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from tests.cli.test_main import ROOT, xl3m
from tests.monitoring.test_http import answers
from tests.support import secured
from tests.support.searching import found_in
from tests.support.workers import Site, site
from tests.system.test_system import assert_equals_offline, chunks, log_text

Fresh = Callable[[str], str]
QUESTION = "which pump is low?"
WAYS = ("SCRAM-SHA-512", "OAUTHBEARER", "certificate")


def way(name: str, kafka: secured.Kafka, folder: Path) -> dict[str, Any]:
    """The settings of one way to authenticate."""
    security = "SSL" if name == "certificate" else "SASL_SSL"
    made: dict[str, Any] = {
        "broker": kafka.listeners[security],
        "kafka_security_protocol": security,
    }
    made["kafka_ssl_cafile"] = str(kafka.certificates.ca)
    if name == "certificate":
        client_, key = kafka.certificates.client, kafka.certificates.key
        return made | {"kafka_ssl_certfile": str(client_), "kafka_ssl_keyfile": str(key)}
    made["kafka_sasl_mechanism"] = name
    if name == "OAUTHBEARER":
        path = folder / "token"
        path.write_text(secured.token() + "\n")
        return made | {"kafka_sasl_token_file": str(path)}
    return made | {"kafka_sasl_username": secured.USER, "kafka_sasl_password": secured.PASSWORD}


def env(settings: dict[str, Any]) -> dict[str, str]:
    """The settings as environment variables."""
    return {variable(name): str(value) for name, value in settings.items()}


async def command(here: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with the site's settings."""
    return await asyncio.to_thread(lambda: xl3m(*words, **here.environment))


def rights() -> dict[str, str]:
    """The ACL rules of each Redis user in SECURITY.md."""
    text = (ROOT / "SECURITY.md").read_text()
    found = re.findall(r"ACL SETUSER (\w+) on >PASSWORD(.*?)\n\n", text, re.S)
    return {name: " ".join(may.split()) for name, may in found}


# -- Kafka -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
async def test_a_worker_and_the_commands_connect_to_a_secured_kafka(
    name: str, secured_kafka: secured.Kafka, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    stream, text, log = fresh("stream"), log_text(4, 60), tmp_path / "log"
    log.write_text(text)
    how = way(name, secured_kafka, tmp_path)
    async with site(how.pop("broker"), redis_url, tmp_path, fresh, **how) as here:
        await client.set_question(here.settings, stream, QUESTION)
        await here.start()
        fed = await command(here, "feed", str(log), "--stream", stream)
        assert fed.returncode == 0, fed.stderr
        await assert_equals_offline(here, stream, QUESTION, text)
        await here.send("queries", stream, json.dumps({"id": "q1", "question": "who?"}).encode())
        ((_, answer),) = await here.received("answers", 1)
        assert decode(answer)["id"] == "q1" and "error" not in decode(answer)
        for words in (("ask", stream, QUESTION), ("doctor",), ("rebuild", "--stream", stream)):
            done = await command(here, *words)
            assert done.returncode == 0, done.stdout + done.stderr


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a wrong password": (
        "SCRAM-SHA-512",
        {"kafka_sasl_password": "hunter2"},
        "XL3M_KAFKA_SASL_PASSWORD",
    ),
    "a wrong password in the clear": (
        "PLAIN",
        {"kafka_sasl_password": "hunter2"},
        "XL3M_KAFKA_SASL_USERNAME",
    ),
    "a wrong token": (
        "OAUTHBEARER",
        {"kafka_sasl_token_file": "stale"},
        "XL3M_KAFKA_SASL_TOKEN_FILE",
    ),
    "no certificate of ours": (
        "certificate",
        {"kafka_ssl_certfile": "", "kafka_ssl_keyfile": ""},
        "XL3M_KAFKA_SSL_CERTFILE",
    ),
    "a stranger's certificate": (
        "SCRAM-SHA-512",
        {"kafka_ssl_cafile": "stranger"},
        "XL3M_KAFKA_SSL_CAFILE",
    ),
    "authorities of the system": (
        "SCRAM-SHA-512",
        {"kafka_ssl_cafile": ""},
        "XL3M_KAFKA_SSL_CAFILE",
    ),
    "a certificate for another name": ("SCRAM-SHA-512", {"broker": "elsewhere"}, "XL3M_BROKER as"),
    "no TLS": (
        "PLAIN",
        dict.fromkeys(
            (
                "kafka_ssl_cafile",
                "kafka_sasl_mechanism",
                "kafka_sasl_username",
                "kafka_sasl_password",
            ),
            "",
        )
        | {"kafka_security_protocol": "PLAINTEXT"},
        "XL3M_KAFKA_SECURITY_PROTOCOL",
    ),
}


def refusal(why: str, kafka: secured.Kafka, folder: Path) -> tuple[dict[str, Any], str]:
    """Settings that Kafka rejects, and the variable that the message must name."""
    name, wrong, named = REFUSALS[why]
    (folder / "stale").write_text("hunter2")
    meant = {
        "stale": str(folder / "stale"),
        "stranger": str(kafka.certificates.stranger),
        "elsewhere": kafka.listeners["SASL_SSL"].replace(secured.HOST, "localhost"),
    }
    wrong = {what: meant.get(value, value) for what, value in wrong.items()}
    return way(name, kafka, folder) | wrong, named


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_rejected_login_names_the_setting_to_check(
    why: str, secured_kafka: secured.Kafka, tmp_path: Path
) -> None:
    given, named = refusal(why, secured_kafka, tmp_path)
    (finding,) = [finding async for finding in kafka_findings(Settings.from_env({}, **given))]
    assert finding.mark == "FAIL"
    assert named in finding.message and "hunter2" not in finding.message


@pytest.mark.parametrize("words", [("feed", __file__), ("worker",)])
@pytest.mark.parametrize("why", ["a wrong password", "a stranger's certificate"])
def test_a_rejected_login_is_reported_in_one_line(
    why: str,
    words: tuple[str, ...],
    secured_kafka: secured.Kafka,
    redis_url: str,
    tmp_path: Path,
    fresh: Fresh,
) -> None:
    given, named = refusal(why, secured_kafka, tmp_path)
    # A fresh prefix avoids the warning about another group's streams.
    done = xl3m(*words, **env(given | {"redis": redis_url, "prefix": fresh("prefix")}))
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert named in line and "hunter2" not in line


async def test_a_renewed_token_is_taken_from_its_file(
    secured_kafka: secured.Kafka, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    how = way("OAUTHBEARER", secured_kafka, tmp_path)
    path = Path(how["kafka_sasl_token_file"])
    async with site(how.pop("broker"), redis_url, tmp_path, fresh, **how) as here:
        path.write_text("stale")
        done = await command(here, "feed", __file__)
        assert done.returncode == 3
        path.write_text(secured.token())
        done = await command(here, "feed", __file__)
        assert done.returncode == 0, done.stderr


# -- Redis -----------------------------------------------------------------------------------


@pytest.fixture
def redis(tmp_path: Path) -> Any:
    """A Redis with TLS and the users of SECURITY.md."""
    with secured.redis(tmp_path / "redis", rights()) as service:
        yield service


@pytest.fixture
async def admin(redis: secured.SecuredRedis) -> AsyncIterator[Redis]:
    """A client with all rights."""
    async with Redis.from_url(redis.users["admin"]) as client_:
        yield client_


async def execute(client_: Any, *words: str) -> Any:
    """Redis's reply to a command that redis-py does not type."""
    return await client_.execute_command(*words)


async def denied(admin: Redis) -> list[Any]:
    """The commands that were denied, except CLIENT SETINFO and the like, which are optional."""
    log: Any = await admin.acl_log()
    return [entry for entry in log if not str(entry["object"]).startswith("client")]


async def test_a_worker_and_a_client_have_the_rights_they_need(
    broker: Service, redis: secured.SecuredRedis, admin: Redis, tmp_path: Path, fresh: Fresh
) -> None:
    stream, text, kept = fresh("stream"), log_text(5, 200), 40
    worker = redis.users["worker"]
    async with site(broker.url, worker, tmp_path, fresh, retention_segments=kept) as here:
        running = await here.start()
        await here.send("questions", stream, QUESTION.encode())
        for piece in chunks(text, 1):
            await here.send("tokens", stream, piece.encode())

        async def read() -> bool:
            known = await client.describe(here.store, stream)
            scored = [question["coverage"] > 0 for question in known["questions"]]
            return bool(known["segments"] > kept and scored == [True])

        await here.until(read)
        await here.send("questions", stream, b'{"question": "and who else?", "add": true}')
        asker = here.environment | {"XL3M_REDIS": redis.users["asker"]}
        done = await asyncio.to_thread(lambda: xl3m("ask", stream, "is all well?", **asker))
        assert done.returncode == 0, done.stderr
        for words in (("ask", stream, "who?"), ("ask", stream), ("streams",), ("doctor",)):
            done = await command(here, *words)
            assert done.returncode == 0, done.stdout + done.stderr
        head = (await here.store.load(stream)).cursor.head
        assert await found_in(Prefilter(worker), stream, QUESTION, range(head - kept, head))
        await here.send("questions", stream, b"")

        async def ended() -> bool:
            return not (await client.describe(here.store, stream))["questions"]

        await here.until(ended)
        assert await here.stop(running) == 0
        done = await command(here, "rebuild", "--stream", stream, "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
    assert await denied(admin) == []


async def test_a_worker_and_a_client_have_no_other_rights(redis: secured.SecuredRedis) -> None:
    others = [("get", "theirs"), ("publish", "theirs", "x"), ("flushdb",), ("config", "get", "*")]
    for user in ("worker", "asker"):
        async with Redis.from_url(redis.users[user]) as client_:
            for words in others + [("get", "xl3m:schema")] * (user == "asker"):
                with pytest.raises(NoPermissionError):
                    await execute(client_, *words)


@pytest.mark.parametrize(
    ("was", "now", "code", "named"),
    [
        (secured.REDIS_PASSWORD, "hunter3", 3, "password"),
        ("ca.pem", "stranger.pem", 3, "certificate verify failed"),
        (f"@{secured.HOST}", "@localhost", 3, "certificate verify failed"),
        ("rediss:", "redis:", 2, "ssl_"),
        ("ssl_ca_certs=", "ssl_nonsense=", 2, "XL3M_REDIS"),
    ],
)
def test_a_login_that_redis_rejects_is_reported_in_one_line(
    redis: secured.SecuredRedis, was: str, now: str, code: int, named: str
) -> None:
    done = xl3m("streams", XL3M_REDIS=redis.users["worker"].replace(was, now))
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert named in line and "hunter3" not in line and secured.REDIS_PASSWORD not in line


# -- secrets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PLAIN", "OAUTHBEARER"])
async def test_secrets_are_written_nowhere(
    name: str,
    secured_kafka: secured.Kafka,
    redis: secured.SecuredRedis,
    tmp_path: Path,
    fresh: Fresh,
) -> None:
    how, port, stream = way(name, secured_kafka, tmp_path), free_port(), fresh("stream")
    how |= {"http_port": port}
    written = list[str]()
    async with (
        site(how.pop("broker"), redis.users["worker"], tmp_path, fresh, **how) as here,
        aiohttp.ClientSession() as session,
    ):
        worker = await here.start("--loglevel", "debug")
        await here.until(lambda: answers(session, port, "readyz"))
        for words in (("feed", __file__, "--stream", stream), ("ask", stream, "who?", "--json"),
                      ("doctor",), ("streams",)):  # fmt: skip
            done = await command(here, *words)
            assert done.returncode == 0, done.stdout + done.stderr
            written += [done.stdout, done.stderr]
        for path in ("metrics", "readyz", "healthz"):
            async with session.get(f"http://127.0.0.1:{port}/{path}") as reply:
                written.append(await reply.text())
        listed = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(worker.pid)], capture_output=True, text=True
        )
        written += [listed.stdout, repr(here.settings)]
        assert await here.stop(worker) == 0
    written.append((tmp_path / "workers.log").read_text())
    assert "worker" in listed.stdout
    assert "Received cluster metadata" in written[-1], "aiokafka is not at debug level"
    for secret in (secured.PASSWORD, secured.REDIS_PASSWORD, secured.token()[:40], "Bearer ey"):
        for text in written:
            assert secret not in text


async def test_a_worker_whose_password_was_changed_writes_no_secrets(
    broker: Service,
    redis: secured.SecuredRedis,
    admin: Redis,
    tmp_path: Path,
    fresh: Fresh,
) -> None:
    port, url = free_port(), redis.users["worker"]
    async with (
        aiohttp.ClientSession() as session,
        site(broker.url, url, tmp_path, fresh, http_port=port) as here,
    ):
        await here.start("--loglevel", "debug")
        await here.until(lambda: answers(session, port, "readyz"))
        await execute(admin, "ACL", "SETUSER", "worker", "resetpass", ">changed")
        await admin.client_kill_filter(user="worker")
        replies = ""

        async def names_redis() -> bool:
            nonlocal replies
            async with session.get(f"http://127.0.0.1:{port}/readyz") as reply:
                replies += await reply.text()
                reasons = (await reply.json()).get("reasons", {})
            return reply.status == 503 and "redis" in reasons

        await here.until(names_redis)
    assert secured.REDIS_PASSWORD not in replies + (tmp_path / "workers.log").read_text()
