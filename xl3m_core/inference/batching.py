"""Rows, and the batches in which they go through the model.

Plain token ids in, batches out: used by the engine for scoring. Needs no torch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

TokenIds = tuple[int, ...]
T = TypeVar("T")

MAX_SUFFIX_TOKENS = 256
"""Tokens of all suffixes in one forward: the attention mask compares each with all the others."""


@dataclass(frozen=True, slots=True)
class Row:
    """The tokens of pair number `pair`: `prefix` is [BOS] segment, `suffix` the question.

    labels: the suffix's tokens whose log p is measured, a negative number in the place of others.
    """

    pair: int
    prefix: TokenIds
    suffix: TokenIds
    labels: TokenIds

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows that go through the model together, each of them whole."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """Segments that go through the model once, with the same questions after each of them.

    segments   [BOS] segment common     `common`: what all questions begin with
    suffixes   the rest of each question
    rows       rows[i][j] is segments[i] with suffixes[j] after it
    """

    segments: Sequence[TokenIds]
    suffixes: Sequence[TokenIds]
    rows: Sequence[Sequence[Row]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Row]]) -> "SharedBatch":
        """rows[i]: all rows of a segment; their questions are the same for every segment."""
        questions = [row.suffix for row in rows[0]]
        common = common_prefix(questions)
        suffixes = [question[len(common) :] for question in questions]
        return cls([group[0].prefix + common for group in rows], suffixes, rows)

    @property
    def lengths(self) -> list[int]:
        """Tokens in one forward of each segment."""
        suffix_tokens = min(sum(map(len, self.suffixes)), MAX_SUFFIX_TOKENS)
        return [len(segment) + suffix_tokens for segment in self.segments]

    def split(self, budget: int) -> Iterator["SharedBatch"]:
        """The segments in batches of at most `budget` tokens a forward, or of one segment."""
        for chosen in batches(self.lengths, budget):
            segments, rows = [self.segments[i] for i in chosen], [self.rows[i] for i in chosen]
            yield SharedBatch(segments, self.suffixes, rows)


Batch = RowBatch | SharedBatch


def group_by_segment(rows: Sequence[Row], budget: int) -> tuple[list[SharedBatch], list[Row]]:
    """Rows whose segment has several questions, as shared batches of any size; and all other rows.

    The questions of a shared batch have at most `budget` tokens, or there is one question; the
    others go into another batch.
    """
    segments: dict[TokenIds, list[Row]] = {}
    for row in rows:
        segments.setdefault(row.prefix, []).append(row)
    by_questions: dict[tuple[TokenIds, ...], list[list[Row]]] = {}
    single = list[Row]()
    for prefix, group in segments.items():
        if not prefix or len({row.suffix for row in group}) == 1:
            single += group
            continue
        for part in split_by_budget(sorted(group, key=_suffix), _suffix_tokens, budget):
            by_questions.setdefault(tuple(row.suffix for row in part), []).append(part)
    return [SharedBatch.of(groups) for groups in by_questions.values()], single


def _suffix(row: Row) -> TokenIds:
    return row.suffix


def _suffix_tokens(row: Row) -> int:
    return len(row.suffix)


def split_by_budget(items: Sequence[T], size: Callable[[T], int], budget: int) -> Iterator[list[T]]:
    """The items in order, in parts whose sizes sum up to at most `budget`, or of one item."""
    part, total = list[T](), 0
    for item in items:
        if part and total + size(item) > budget:
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part


def pad_right(rows: Sequence[Sequence[int]], widths: Sequence[int]) -> Iterator[list[int]]:
    """Each row's ids with zeros after them up to its width."""
    for row, width in zip(rows, widths, strict=True):
        yield [*row, *[0] * (width - len(row))]


def common_prefix(suffixes: Sequence[TokenIds]) -> TokenIds:
    """The longest start that all suffixes share and that leaves each at least one token."""
    first, last = min(suffixes), max(suffixes)
    longest = min(map(len, suffixes)) - 1
    differing = (i for i in range(longest) if first[i] != last[i])
    return first[: next(differing, longest)]


def batches(lengths: Sequence[int], budget: int, *, even: bool = False) -> Iterator[list[int]]:
    """Indices of rows that go together: sorted by length, `budget` tokens with padding, or one row.

    even: only rows of one length go together.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        is_full = batch and (len(batch) + 1) * lengths[batch[0]] > budget
        is_uneven = batch and even and lengths[i] != lengths[batch[0]]
        if is_full or is_uneven:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def balanced_budget(lengths: Sequence[int], batch_tokens: int, workers: int) -> int:
    """Tokens a batch, so that each worker gets the same number of batches of about one size.

    May exceed `batch_tokens` by a quarter, to avoid a batch of a few leftover rows.
    """
    if workers == 1 or not lengths:
        return batch_tokens
    longest, row = batch_tokens * 5 // 4, max(lengths)
    tokens = sum(lengths)
    count = workers * math.ceil(tokens / (workers * max(1, longest - row)))
    budget = tokens // count + row
    while budget < longest and len([*batches(lengths, budget)]) > count:
        budget += row
    return min(longest, budget)
