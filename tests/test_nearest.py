"""The nearest valid pixel, compared with brute force, and in bounded time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.geo.nearest import nearest_valid


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**31), st.floats(0, 1))
def test_equals_brute_force(height: int, width: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((height, width)) < share
    valid[rng.integers(height), rng.integers(width)] = True
    rows, columns = nearest_valid(valid)
    assert valid[rows, columns].all()
    there = np.argwhere(valid)
    for row in range(height):
        for column in range(width):
            best = ((there - (row, column)) ** 2).sum(1).min()
            got = (rows[row, column] - row) ** 2 + (columns[row, column] - column) ** 2
            assert got == best


def test_large_holes() -> None:
    valid = np.ones((700, 900), bool)
    valid[:, :800] = False
    rows, columns = nearest_valid(valid)
    assert (columns[:, :800] == 800).all()
    assert (rows == np.arange(700)[:, None]).all()
