"""Rows are dealt to lanes without one lost, and evenly."""

from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.rows import deal


@given(st.lists(st.lists(st.integers(), max_size=9), max_size=5), st.integers(1, 4))
def test_every_card_is_dealt_once_and_no_hand_has_more_than_one_more(
    piles: list[list[int]], hands: int
) -> None:
    dealt = deal(piles, hands)
    sizes = [sum(map(len, hand)) for hand in dealt]
    assert len(dealt) == hands
    assert max(sizes) - min(sizes) <= 1
    for n, pile in enumerate(piles):
        assert sorted(card for hand in dealt for card in hand[n]) == sorted(pile)
