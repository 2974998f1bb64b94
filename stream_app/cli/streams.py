"""`xl3m streams`: list the streams, one line each."""

from stream_app.cli.display import show_stream
from stream_app.cli.output import echo_json
from stream_app.client import client
from stream_app.settings import Settings
from stream_app.store.connection import open_redis
from stream_app.store.store import StreamStore


async def streams(settings: Settings, as_json: bool, memory: bool = False) -> None:
    """Print each stream's segments, missing offsets and questions; memory: also its bytes."""
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        for stream in await store.streams():
            description = await client.describe(store, stream)
            if memory:
                description["bytes"], _ = await store.memory_usage(stream)
            echo_json(description) if as_json else show_stream(description)
