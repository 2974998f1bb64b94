"""IndexSet: which segments outside a scored range have been read, one bit each."""

from collections.abc import Iterable, Iterator


class IndexSet:
    """A set of segment indices as the bits of one integer, from `base` on: 25 KB for 200,000 of
    them. To copy it costs nothing, since integers do not change."""

    __slots__ = ("base", "bits")

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self.base, self.bits = 0, 0
        self.add(indices)

    def copy(self) -> "IndexSet":
        """An equal set of its own."""
        made = IndexSet()
        made.base, made.bits = self.base, self.bits
        return made

    def __or__(self, other: "IndexSet") -> "IndexSet":
        """The indices of both."""
        if not other.bits:
            return self.copy()
        made, also = other.copy(), self.copy()
        made._move_base(min(made.base, also.base) if also.bits else made.base)
        made.bits |= also.bits << max(0, also.base - made.base)
        return made

    def __bool__(self) -> bool:
        return bool(self.bits)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __contains__(self, index: int) -> bool:
        return index >= self.base and bool(self.bits >> (index - self.base) & 1)

    def __iter__(self) -> Iterator[int]:
        """The indices in their order."""
        bits = self.bits
        while bits:
            yield self.base + (bits & -bits).bit_length() - 1
            bits &= bits - 1

    def add(self, indices: Iterable[int]) -> None:
        """Put these into the set."""
        if not (wanted := [*indices]):
            return
        if not self.bits or min(wanted) < self.base:
            self._move_base(min(wanted))
        self.bits |= _mask(wanted, self.base)

    def discard(self, indices: Iterable[int]) -> None:
        """Take these out of the set."""
        self.bits &= ~_mask([i for i in indices if i >= self.base], self.base)

    def discard_between(self, lo: int, hi: int) -> None:
        """Take [lo, hi) out of the set."""
        lo, hi = max(lo, self.base), max(hi, self.base)
        self.bits &= ~(_ones(lo, hi) << (lo - self.base))
        if lo == self.base:
            self._move_base(hi)

    def count(self, lo: int, hi: int) -> int:
        """How many of [lo, hi) are in the set."""
        return self._between(lo, hi).bit_count() if self.bits else 0

    def end_of_run(self, lo: int) -> int:
        """The first index from `lo` on that is not in the set."""
        bits = self._between(lo, self.base + self.bits.bit_length())
        return lo + (~bits & (bits + 1)).bit_length() - 1

    def start_of_run(self, hi: int, least: int) -> int:
        """The lowest index, but not below `least`, from which all up to `hi` are in the set; `hi`
        if `hi - 1` is not."""
        last = self.newest_missing(least, hi, 1)
        return last[0] + 1 if last else least

    def oldest_missing(self, lo: int, hi: int, limit: int) -> list[int]:
        """At most `limit` of [lo, hi) that are not in the set, the first one first."""
        if not self.bits:
            return [*range(lo, min(hi, lo + limit))]
        missing, found = _ones(lo, hi) & ~self._between(lo, hi), list[int]()
        while missing and len(found) < limit:
            lowest = missing & -missing
            found.append(lo + lowest.bit_length() - 1)
            missing ^= lowest
        return found

    def newest_missing(self, lo: int, hi: int, limit: int) -> list[int]:
        """At most `limit` of [lo, hi) that are not in the set, the last one first."""
        if not self.bits:
            return [*range(hi - 1, max(lo, hi - limit) - 1, -1)]
        missing, found = _ones(lo, hi) & ~self._between(lo, hi), list[int]()
        while missing and len(found) < limit:
            top = missing.bit_length() - 1
            found.append(lo + top)
            missing &= (1 << top) - 1
        return found

    def _between(self, lo: int, hi: int) -> int:
        """The bits of [lo, hi); bit 0 is that of `lo`."""
        shift = lo - self.base
        bits = self.bits >> shift if shift >= 0 else self.bits << -shift
        return bits & _ones(lo, hi)

    def _move_base(self, base: int) -> None:
        shift = base - self.base
        self.bits = self.bits >> shift if shift >= 0 else self.bits << -shift
        self.base = base


def _ones(lo: int, hi: int) -> int:
    return (1 << max(0, hi - lo)) - 1


def _mask(indices: Iterable[int], base: int) -> int:
    """The bits of these indices."""
    mask = 0
    for index in indices:
        mask |= 1 << (index - base)
    return mask
