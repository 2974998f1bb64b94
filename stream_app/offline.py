"""`xl3m run`: the method on a file, without any server.

Reads the file in chunks, so that its length does not matter. Knows the method; no stream.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
from tqdm import tqdm

from stream_app.display import show_answer
from stream_app.engine import create_engine
from stream_app.settings import Settings
from stream_app.terminal import say, say_json
from xl3m_core import XL3M

CHUNK_CHARS = 1 << 16


def run(settings: Settings, file: Path, questions: tuple[str, ...], as_json: bool) -> bool:
    """Answer each question from the file and print it; False if one has no answer."""
    if str(file) == "-" and len(questions) > 1:
        raise click.BadParameter("standard input can be read once: give one question")
    method, answered = XL3M(create_engine(settings)), True
    for question in questions:
        with tqdm(unit="tok", unit_scale=True, desc="read", disable=None) as bar:
            answer = method.answer(
                _chunks(file), question, on_progress=partial(_advance, bar)
            ).to_dict()
        if as_json:
            say_json(answer)
        else:
            say(f"{question}\n{answer['answer']}", nl=False)
            show_answer(answer)
        answered = answered and "error" not in answer
    return answered


def _advance(bar: tqdm, tokens: int) -> None:
    bar.update(tokens - bar.n)


def _chunks(file: Path) -> Iterator[str]:
    with click.open_file(str(file), encoding="utf-8", errors="replace") as text:
        while chunk := text.read(CHUNK_CHARS):
            yield chunk
