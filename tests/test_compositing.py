"""Median and mosaic against NumPy written out, whatever the types, units and strips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rs_embed.errors import ProviderError, UnknownNameError
from rs_embed.providers.scenes.compositing import Layer, composite
from rs_embed.specs import Composite

SHAPE = (3, 40, 25)


def layer(
    data: NDArray[Any],
    valid: NDArray[np.bool_],
    name: str = "a",
    reflectance: tuple[float, float] | None = None,
) -> Layer:
    """A layer in memory, which is asked for rows alone."""
    return Layer(name, lambda rows: (data[:, rows], valid[rows]), data.dtype, reflectance)


def layers(count: int, dtype: str = "uint16", seed: int = 0) -> list[Layer]:
    """Random layers with holes; the first row is empty in all of them."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        data = rng.integers(1, 9999, SHAPE).astype(dtype)
        valid = rng.random(SHAPE[1:]) > 0.4
        valid[0] = False
        data[:, ~valid] = 0
        made.append(layer(data, valid, f"scene-{i}"))
    return made


def whole(stack: list[Layer]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Data ``(n, b, h, w)`` as float with NaN, and valid ``(n, h, w)``."""
    read = [one.read(slice(0, SHAPE[1])) for one in stack]
    valid = np.stack([v for _, v in read])
    data = np.stack([d.astype(float) for d, _ in read])
    return np.where(valid[:, None], data, np.nan), valid


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("memory", [2**28, 20_000])
def test_median_is_numpys(count: int, memory: int) -> None:
    stack = layers(count)
    made = composite(stack, "median", SHAPE, memory=memory)
    data, valid = whole(stack)
    expected = np.nanmedian(data, axis=0)
    assert made.data.dtype == np.float32
    assert np.array_equal(made.valid, valid.any(axis=0))
    assert not made.valid[0].any()
    assert np.array_equal(made.data[:, made.valid], expected[:, made.valid].astype(np.float32))
    assert (made.data[:, ~made.valid] == 0).all()
    assert made.used == (True,) * count


@pytest.mark.parametrize("memory", [2**28, 20_000])
def test_mosaic_takes_the_last_valid_pixel(memory: int) -> None:
    stack = layers(4)
    made = composite(stack, "mosaic", SHAPE, memory=memory)
    expected = np.zeros(SHAPE)
    data, valid = whole(stack)
    for one, usable in zip(data, valid, strict=True):
        expected[:, usable] = one[:, usable]
    assert made.data.dtype == np.uint16
    assert np.array_equal(made.data, expected)
    assert np.array_equal(made.valid, valid.any(axis=0))


def test_strips_are_as_small_as_memory_asks() -> None:
    asked: list[int] = []
    (one, two) = layers(2)

    def read(rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        asked.append(rows.stop - rows.start)
        return one.read(rows)

    watched = Layer("watched", read, one.dtype, None)
    composite([watched, two], "median", SHAPE, memory=3 * 25 * 4 * 6 * 7)
    assert asked == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((0, 4), [8] * 5),
        ((3, 4), [7, 8, 8, 8, 8, 1]),
        ((9, 16), [9, 10, 6, 10, 5]),  # a block that does not fit is read in parts
        ((5, 100), [5, 10, 10, 10, 5]),
    ],
)
def test_strips_end_where_blocks_do(blocks: tuple[int, int], expected: list[int]) -> None:
    asked: list[int] = []
    stack = layers(2)

    def read(rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        asked.append(rows.stop - rows.start)
        return stack[0].read(rows)

    watched = Layer("watched", read, stack[0].dtype, None, blocks)
    made = composite([stack[1], watched], "median", SHAPE, memory=3 * 25 * 4 * 6 * 10)
    assert asked == expected
    assert np.array_equal(made.data, composite(stack, "median", SHAPE).data)


def test_a_layer_below_a_full_one_is_not_read() -> None:
    def never(rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        pytest.fail("read")

    hidden = Layer("hidden", never, np.dtype("uint16"), None)
    full = layer(np.full(SHAPE, 7, np.uint16), np.ones(SHAPE[1:], bool))
    made = composite([hidden, full], "mosaic", SHAPE)
    assert made.used == (False, True)


@pytest.mark.parametrize("kind", ["median", "mosaic"])
def test_one_layer_passes_untouched(kind: Composite) -> None:
    (one,) = layers(1, "int16")
    made = composite([one], kind, SHAPE)
    assert made.data.dtype == np.int16
    assert np.array_equal(made.data, one.read(slice(0, 40))[0])


@pytest.mark.parametrize("kind", ["median", "mosaic"])
def test_units_are_brought_to_one(kind: Composite) -> None:
    full = np.ones(SHAPE[1:], bool)
    reflectance = layer(np.full(SHAPE, 0.25, np.float64), full, "fraction", (1.0, 0.0))
    shifted = layer(np.full(SHAPE, 3500, np.int16), full, "shifted", (1e-4, -0.1))
    made = composite([reflectance, shifted], kind, SHAPE)
    assert made.reflectance == (1e-4, 0.0)
    assert made.data.dtype == np.float32
    assert made.data == pytest.approx(np.full(SHAPE, 2500), abs=0.01)


def test_same_units_of_different_types_stay_as_declared() -> None:
    full = np.ones(SHAPE[1:], bool)
    pair = [
        layer(np.full(SHAPE, value, dtype), full, dtype, (1e-4, -0.1))
        for value, dtype in ((3000, "uint16"), (4000, "int32"))
    ]
    made = composite(pair, "median", SHAPE)
    assert made.reflectance == (1e-4, -0.1)
    assert (made.data == 3500).all()


def test_units_that_cannot_be_brought_to_one() -> None:
    full = np.ones(SHAPE[1:], bool)
    whole_numbers = layer(np.full(SHAPE, 2500, np.uint16), full, "silent")
    declared = layer(np.full(SHAPE, 2500, np.uint16), full, "declared", (1e-4, 0.0))
    fractions = layer(np.full(SHAPE, 0.25, np.float32), full, "fractions")
    with pytest.raises(ProviderError, match="'declared' declares .* 'silent' declares none.*gdal"):
        composite([whole_numbers, declared], "median", SHAPE)
    with pytest.raises(ProviderError, match="'silent' has uint16 and 'fractions' float32"):
        composite([whole_numbers, fractions], "mosaic", SHAPE)


def test_an_unknown_kind() -> None:
    with pytest.raises(UnknownNameError, match="unknown composite 'mean'"):
        composite(layers(2), "mean", SHAPE)  # type: ignore[arg-type]
