"""A store, a scorer on it, and no pauses between retries."""

import pytest
from redis.asyncio import Redis

from stream_app.runtime import retry
from stream_app.store.store import StreamStore
from tests.support.scoring import World


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not back off when a test makes Redis fail."""
    monkeypatch.setattr(retry, "BACKOFF_SECONDS", (0.0,))


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store without retention limits."""
    return StreamStore(redis_client)


@pytest.fixture
def world(store: StreamStore) -> World:
    """A scorer on it."""
    return World(store)
