"""`xl3m run`: answer questions about a file, without any server.

The file is read once, in chunks, so that it may be a pipe and of any length.
"""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from stream_app.cli.display import show_answer
from stream_app.cli.output import echo, echo_json
from stream_app.engine import create_engine
from stream_app.feeding.file_text import FileText
from stream_app.formats.lines import line_rule
from stream_app.settings import Settings
from xl3m_core import XL3M, Answer


def run(settings: Settings, file: Path, questions: tuple[str, ...], as_json: bool) -> bool:
    """Answer each question from the file and print it; False if one has no answer."""
    text = FileText(file, settings.encoding, line_rule(settings.time_from_line))
    method = XL3M(create_engine(settings))
    answered = True
    with tqdm(unit="tok", unit_scale=True, desc="read", disable=None) as bar:
        for answer in method.answers(text.timed(), questions, partial(_advance, bar)):
            bar.close()
            _show(answer, as_json)
            answered = answered and answer.error is None
    if text.warning:
        echo(f"xl3m: {text.warning}", err=True)
    return answered


def _show(answer: Answer, as_json: bool) -> None:
    if as_json:
        echo_json(answer.to_dict())
        return
    echo(f"{answer.question}\n{answer.answer}", nl=False)
    show_answer(answer.to_dict())


def _advance(bar: tqdm, tokens: int) -> None:
    bar.update(tokens - bar.n)
