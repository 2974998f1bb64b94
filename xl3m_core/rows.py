"""Rows: what is scored, and in which batches it goes through the model.

Pure: token ids in, plans out. Knows no model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What is scored as pair number `pair`: `prefix` is [BOS] segment, `suffix` the question."""

    pair: int
    prefix: Ids
    suffix: Ids

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


def by_prefix(rows: Sequence[Row]) -> tuple[list[list[Row]], list[Row]]:
    """Rows that share their prefix with another question's, together; and the others."""
    groups: dict[Ids, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.prefix, []).append(row)
    shared, single = list[list[Row]](), list[Row]()
    for prefix, group in groups.items():
        if prefix and len({row.suffix for row in group}) > 1:
            shared.append(group)
        else:
            single += group
    return shared, single


def common_start(suffixes: Sequence[Ids]) -> Ids:
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
