"""`xl3m ask`: ask a stream a question and print the answer with its evidence.

Early answers go to standard error: standard output has the answer alone.
"""

import time
from dataclasses import fields
from typing import Any

from stream_app.cli.display import show_answer
from stream_app.cli.output import echo, echo_json
from stream_app.cli.progress import Progress
from stream_app.client import client
from stream_app.events import question_text, stream_name
from stream_app.settings import Settings
from stream_app.store.connection import open_redis
from stream_app.store.store import StreamStore
from xl3m_core import Answer

FIELDS = {field.name for field in fields(Answer)}


async def ask(
    settings: Settings,
    stream: str,
    question: str | None,
    as_json: bool,
    shows_progress: bool = False,
) -> bool:
    """Print the answer as it is generated, then what it rests on; False if there is no answer."""
    started, answer = time.perf_counter(), dict[str, Any](error="no answer came")
    stream_name(stream)
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        stream = await client.resolve(store, stream)
        progress = Progress(store, stream, question_text(question))
        async with progress.shown(shows_progress):
            messages = client.ask(
                store, stream, question, settings.query_deadline_seconds, early=not as_json
            )
            async for message in messages:
                match message.get("type"):
                    case "revision":
                        progress.show_answer(message)
                    case "text" | "answer":
                        await progress.stop()
                if message.get("type") == "answer":
                    answer = message
                elif message.get("type") == "text" and not as_json:
                    echo(message.get("text", ""), nl=False)
    answer = {name: value for name, value in answer.items() if name in FIELDS}
    if as_json:
        echo_json(answer)
    else:
        show_answer(answer, settings.query_deadline_seconds, time.perf_counter() - started)
    return "error" not in answer
