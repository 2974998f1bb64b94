"""Extraction: the span of a record that answers a question, chosen by the model, not written by it.

A small model that writes an answer invents one more often than not, even with the right line before
it; the right span it knows far better (measured: docs/experiments.md). Each span is scored by

    log p(span, end of line | examples, record, question)
    - PRIOR log p(span | examples, record, a question without content)

so that a span which is likely after any question, such as a log's time, does not win. A few worked
examples before the record say what an answer looks like.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from xl3m_core.measure import entropy, token_log_probs
from xl3m_core.spans import Start, starts

NEUTRAL = "N/A"
"""The question without content, as in contextual calibration (arXiv 2102.09690)."""
PRIOR = 0.5
"""Of 35 look-up questions about ten logs, with the right line given, SmolLM2-135M-Instruct answers
23 without the prior, 26 with a half of it, 22 with all of it. Of 27 of them it answers 20 with the
examples, and 14 without."""
MAX_STARTS = 256
"""Words of a record at which a span may begin: a whole document may be one record, such as indented
JSON, and reading all its spans would hold up all other answers. A log's line has 5 to 60."""
MAX_TOKENS = 9
"""Tokens of a span that are scored: what follows in a longer word is copied in any case."""
CUT_END = -1.0
"""Nats for the end of a word that is longer than that."""

QUESTION = "\nQuestion: {}\nAnswer:"
LEAD = " "
EXAMPLES = (
    (
        "Mar 02 11:04:51 web-7 nginx[4120]: GET /cart HTTP/1.1 status=503 bytes=1841 "
        "client=192.0.2.44",
        "What status did /cart return?",
        "503",
    ),
    (
        "2021-11-30T06:15:09Z WARN [auth] login of user kate failed after 3 attempts: account "
        "locked",
        "Who could not log in?",
        "kate",
    ),
    (
        "INFO backup.Runner: copied 812 files to /srv/archive in 42.7 seconds",
        "Where were the files copied to?",
        "/srv/archive",
    ),
    (
        "ERROR disk.Monitor - volume data2: read error on sector 99120, retry in 5 min",
        "Why does volume data2 retry?",
        "read error",
    ),
)
"""A record, a question and its answer each; made up."""


class Reader(Protocol):
    """What extraction needs of a `LanguageModel`."""

    window: int
    bos: list[int]
    can_share_prefix: bool

    @property
    def eos_token_ids(self) -> set[int]:
        """Tokens that end an answer."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token of the text, in characters."""

    def logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Logits of the last positions of rows."""

    def suffix_logits(
        self, rows: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], keep: Sequence[int]
    ) -> Iterator[Tensor]:
        """Logits of the last positions of each suffix after rows."""


class Extract(NamedTuple):
    """A span; its score in nats; the entropy in nats of the model's first token there."""

    text: str
    score: float
    entropy: float


class Path(NamedTuple):
    """The tokens of all spans with one start: each ends with the token at one of `ends`, or is cut
    there. texts: the spans."""

    ids: list[int]
    ends: list[int]
    texts: list[str]
    is_cut: bool


def best_span(model: Reader, record: str, question: str) -> Extract | None:
    """The span of the record that answers the question best; None if the record has none, or does
    not fit the window. Its entropy is NaN if the logits are."""
    found = (_path(model, record, start) for start in starts(record, question))
    paths = [path for path in found if path]
    prompts = _prompts(model, record, question)
    if not paths or not prompts or len(paths) > MAX_STARTS:
        return None
    scored = list[tuple[float, str]]()
    first = torch.empty(0)
    for path, logits in zip(paths, _logits(model, prompts, paths), strict=True):
        first = logits[:1, 0]
        scored += zip(_scores(model, path, logits), path.texts, strict=True)
    score, text = max(scored, key=lambda pair: pair[0])
    return Extract(text, score, float(entropy(first)[0]))


def _scores(model: Reader, path: Path, logits: Tensor) -> list[float]:
    """The score of each span. logits: (2, tokens + 1, V), after the question and the neutral one;
    the last position predicts what follows all tokens."""
    labels = torch.tensor([path.ids] * 2, device=logits.device)
    asked, neutral = token_log_probs(logits[:, :-1], labels).cumsum(dim=-1).tolist()
    log_p = torch.log_softmax(logits[0, 1:].float(), dim=-1)
    over = log_p[:, _end_ids(model)].logsumexp(dim=-1).tolist()
    return [
        asked[end] - PRIOR * neutral[end] + (CUT_END if path.is_cut and i == 0 else over[end])
        for i, end in enumerate(path.ends)
    ]


def _end_ids(model: Reader) -> list[int]:
    """Tokens that may follow an answer: a line break, or the end of the text."""
    breaks = (ids[0] for ids in model.encode(["\n", "\n\n"]) if ids)
    return sorted({*breaks, *model.eos_token_ids})


def _path(model: Reader, record: str, start: Start) -> Path | None:
    """None if no span ends where a token does."""
    texts = [record[start.start : end] for end in start.ends]
    whole = LEAD + texts[-1]
    ids, ends = model.encode([whole])[0], [end for _, end in model.offsets(whole)]
    place = {end: i for i, end in enumerate(ends[:MAX_TOKENS])}
    kept = [(place[end], text) for text in texts if (end := len(LEAD + text)) in place]
    is_cut = len(ids) > MAX_TOKENS and len(LEAD + texts[0]) > ends[MAX_TOKENS - 1]
    if is_cut:
        kept = [(MAX_TOKENS - 1, texts[0])]
    if not kept:
        return None
    last = max(end for end, _ in kept)
    return Path(ids[: last + 1], [end for end, _ in kept], [text for _, text in kept], is_cut)


def _prompts(model: Reader, record: str, question: str) -> list[list[int]]:
    """The prompt with the question and with the neutral one, with as many examples as fit; none if
    the record alone does not."""
    for count in range(len(EXAMPLES), -1, -1):
        before = "".join(
            f"{text}{QUESTION.format(asked)}{LEAD}{answer}\n\n"
            for text, asked, answer in EXAMPLES[:count]
        )
        texts = [before + record + QUESTION.format(asked) for asked in (question, NEUTRAL)]
        prompts = [model.bos + ids for ids in model.encode(texts)]
        if max(map(len, prompts)) + MAX_TOKENS <= model.window:
            return prompts
    return []


def _logits(model: Reader, prompts: Sequence[list[int]], paths: Sequence[Path]) -> Iterator[Tensor]:
    """For each path the logits (prompts, tokens + 1, V) from the prompts' last token on."""
    suffixes = [path.ids for path in paths]
    keep = [len(suffix) + 1 for suffix in suffixes]
    if model.can_share_prefix:
        yield from model.suffix_logits(prompts, suffixes, keep)
        return
    for suffix, count in zip(suffixes, keep, strict=True):
        yield torch.cat([model.logits([prompt + suffix], count) for prompt in prompts])
