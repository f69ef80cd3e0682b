"""What a forked process is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3gw.orders import Orders, decode_orders

TEXTS = st.text(st.characters(blacklist_characters="\0"), max_size=20)


@given(st.lists(TEXTS, max_size=5), st.dictionaries(TEXTS, TEXTS, max_size=4), st.lists(st.integers(0, 1 << 20)))
def test_they_arrive_as_they_were_given(arguments: list[str], variables: dict[str, str], numbers: list[int]) -> None:
    """Whatever is in them, a path that is no text (surrogates) too."""
    orders = Orders(tuple(arguments), variables, tuple(numbers))
    assert decode_orders(orders.encode()) == orders
    odd = Orders(("\udcff/x",), {}, ())
    assert decode_orders(odd.encode()) == odd
