"""Packed rows: each has the same logits as alone, with any other rows in the batch."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference import attention
from xl3m_core.inference.packing import MAX_PADDING_RATIO, PackedBatch, slots_of

NARROW = {"mistral", "gemma3", "bloom"}
"""Models with a sliding window, or with positions that depend on the mask."""
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)
CPU = torch.device("cpu")


def room(lengths: list[int], filled: bool) -> list[int]:
    """The slot of each row: as long as the longest, or as its own length."""
    return [max(lengths)] * len(lengths) if filled else lengths


@given(LENGTHS, st.booleans())
def test_each_row_of_a_grid_is_a_row_and_what_they_gather_stands_one_behind_the_other(
    lengths: list[int], filled: bool
) -> None:
    sizes = room(lengths, filled)
    packed, total = PackedBatch(lengths, sizes, CPU), sum(sizes)
    tokens = torch.arange(total * 6).view(1, total, 2, 3).transpose(1, 2)  # (1, H, N, D)
    rows, seen = iter(torch.split(tokens[0], sizes, dim=1)), list[int]()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert torch.equal(query, key) and torch.equal(query[:, :1], -value)
        for grid_row in query:
            row = next(rows)
            assert torch.equal(grid_row[:, : row.shape[1]], row)
            seen.append(row.shape[1])
        return query.transpose(1, 2)

    gathered = packed.attended(attend, tokens, tokens, -tokens[:, :1])
    assert torch.equal(gathered, tokens.transpose(1, 2))
    assert seen == sizes
    assert packed.position_ids.tolist() == [place for size in sizes for place in range(size)]


@given(LENGTHS, st.booleans(), st.data())
def test_the_last_tokens_are_those_of_each_row(
    lengths: list[int], filled: bool, data: st.DataObject
) -> None:
    keep = data.draw(st.integers(1, min(lengths)))
    packed = PackedBatch(lengths, room(lengths, filled), CPU)
    last = packed.last(keep)
    assert packed.position_ids[last].view(-1, keep).tolist() == [
        [*range(n - keep, n)] for n in lengths
    ]
    rows = [[row * 100 + i for i in range(n)] for row, n in enumerate(lengths)]
    assert packed.ids(rows)[last].view(-1, keep).tolist() == [row[-keep:] for row in rows]


@given(LENGTHS)
def test_rows_are_filled_only_where_that_is_little(lengths: list[int]) -> None:
    sizes = slots_of(lengths)
    assert sizes in (lengths, room(lengths, True))
    assert sum(sizes) <= MAX_PADDING_RATIO * sum(lengths)
    assert (slots_of([90, 89]), slots_of([90, 3])) == ([90, 90], [90, 3])


@pytest.mark.parametrize("kind", [attention.NAME, attention.PACKED])
@pytest.mark.parametrize("name", tiny.PADDED)
@given(
    st.lists(st.integers(2, tiny.WINDOW), min_size=2, max_size=20)
    | st.lists(st.integers(tiny.WINDOW - 1, tiny.WINDOW), min_size=2, max_size=20)
)
@settings(max_examples=8, deadline=None)
def test_packed_rows_have_the_logits_that_they_have_alone(
    name: str, kind: str, lengths: list[int]
) -> None:
    model = LanguageModel(copy.deepcopy(tiny.network(name)), tiny.tokenizer())
    assert model.can_pack is (name not in NARROW)
    if name in NARROW:
        return
    model.model.set_attn_implementation(kind)
    rows = [[(n * n + i) % tiny.VOCAB for n in range(length)] for i, length in enumerate(lengths)]
    for row, own in zip(rows, model.packed_logits(rows, 2), strict=True):
        torch.testing.assert_close(own, model.logits([row], 2)[0], rtol=1e-3, atol=1e-3)


def test_the_small_model_packs_all_rows_but_those_too_short_for_it() -> None:
    model = LanguageModel.load(dtype="bfloat16", device="cpu")
    packed, seen = model.packed_logits, list[list[int]]()

    def noting(rows: list[list[int]], keep: int) -> torch.Tensor:
        seen.append([*map(len, rows)])
        return packed(rows, keep)

    model.packed_logits = noting  # type: ignore[method-assign, assignment]
    several = [[90, 70, 110], [90, 90], [90], [90, 89]]
    found = list[tuple[list[list[int]], torch.Tensor]]()
    for lengths in several:
        rows = [[*range(5, 5 + length)] for length in lengths]
        found.append((rows, model.logits(rows, 4)))
    assert model.logits([[*range(90)], [5, 6, 7]], 4).shape[1] == 4  # one is too short
    assert seen == several
    model.can_pack = False
    for rows, together in found:
        for row, own in zip(rows, together, strict=True):
            assert model.probe.is_close(model.logits([row], 4)[0], own)
