"""Hypothesis strategies of hostile input that several tests share, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\0", "1", "", "kdal", "x" * 3000])
)
"""Every scalar that `json.loads` can give: NaN, infinities and halves of characters too."""


def _containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)


json_values = st.recursive(scalars, _containers, max_leaves=12)


def outcome(error: type[E], call: Callable[[], T]) -> T | E:
    """What a call returns, or the error of that kind that it raises; any other error is the test's failure."""
    try:
        return call()
    except error as raised:
        return raised
