"""Rows: what is scored, and in which batches it goes through the model.

Pure: token ids in, plans out. Knows no model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

TokenIds = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """What is scored as pair number `pair`: `prefix` is [BOS] segment, `suffix` the question."""

    pair: int
    prefix: TokenIds
    suffix: TokenIds

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


def group_by_segment(rows: Sequence[Row], room: int) -> tuple[list[list[list[Row]]], list[Row]]:
    """Rows of one segment together, and such groups that ask the same together; and the rows
    that have their segment to themselves.

    What a group asks has `room` tokens at most, or is one question; the rest is another group.
    """
    segments: dict[TokenIds, list[Row]] = {}
    for row in rows:
        segments.setdefault(row.prefix, []).append(row)
    alike: dict[tuple[TokenIds, ...], list[list[Row]]] = {}
    single = list[Row]()
    for prefix, group in segments.items():
        if not prefix or len({row.suffix for row in group}) == 1:
            single += group
            continue
        for part in split_by_budget(sorted(group, key=_suffix), _asked, room):
            alike.setdefault(tuple(row.suffix for row in part), []).append(part)
    return list(alike.values()), single


def _suffix(row: Row) -> TokenIds:
    return row.suffix


def _asked(row: Row) -> int:
    return len(row.suffix)


def split_by_budget(items: Sequence[T], size: Callable[[T], int], room: int) -> Iterator[list[T]]:
    """The items in order, so many together that their sizes are within the room, or one."""
    part, total = list[T](), 0
    for item in items:
        if part and total + size(item) > room:
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part


def pad_right(rows: Sequence[Sequence[int]], room: Sequence[int]) -> Iterator[list[int]]:
    """Each row's ids, zeros behind them as far as it has room."""
    for row, most in zip(rows, room, strict=True):
        yield [*row, *[0] * (most - len(row))]


def common_prefix(suffixes: Sequence[TokenIds]) -> TokenIds:
    """What all the suffixes begin with; each has at least a token more."""
    first, last = min(suffixes), max(suffixes)
    most = min(map(len, suffixes)) - 1
    same = (i for i in range(most) if first[i] != last[i])
    return first[: next(same, most)]


def batches(lengths: Sequence[int], budget: int, *, even: bool = False) -> Iterator[list[int]]:
    """Which rows go together: by length, within a token budget; even: of one length only."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        full = batch and (len(batch) + 1) * lengths[batch[0]] > budget
        odd = batch and even and lengths[i] != lengths[batch[0]]
        if full or odd:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
