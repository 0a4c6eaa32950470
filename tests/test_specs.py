"""Requests are checked when they are built, and every error says how to fix it."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rs_embed import BBox, FetchSpec, OutputSpec, PointBuffer, SensorSpec, SpecError, TemporalSpec
from rs_embed.errors import UnknownNameError
from rs_embed.specs import to_json

NOT_POSITIVE = [0, -1, -0.5, 10**400, math.nan, math.inf, -math.inf, True, "10", None, [10], 1j]


@pytest.mark.parametrize("scale_m", [v for v in NOT_POSITIVE if v is not None])
@pytest.mark.parametrize("kind", [FetchSpec, lambda **kw: SensorSpec("c", ("r", "g", "b"), **kw)])
def test_scale_m_must_be_a_positive_number(kind: Any, scale_m: Any) -> None:
    with pytest.raises(SpecError, match=r"got scale_m=.*expected"):
        kind(scale_m=scale_m)


@pytest.mark.parametrize("scale_m", [0.5, 10, np.float32(0.3), np.int64(3)])
def test_scale_m_may_be_fractional_and_from_numpy(scale_m: Any) -> None:
    assert FetchSpec(scale_m=scale_m).scale_m == scale_m


@pytest.mark.parametrize("buffer_m", NOT_POSITIVE)
def test_buffer_must_be_a_positive_number(buffer_m: Any) -> None:
    with pytest.raises(SpecError, match=r"got buffer_m=.*expected"):
        PointBuffer(lon=10, lat=50, buffer_m=buffer_m)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ((181, 0, 1), r"got lon=181, expected degrees from -180 to 180"),
        ((0, 121.5, 1), r"got lat=121.5, expected degrees from -90 to 90; are longitude and lat"),
        ((math.nan, 0, 1), r"got lon=nan, expected a finite number"),
        (("10", 0, 1), r"got lon='10' \(str\), expected a number"),
    ],
)
def test_point_out_of_range(values: Any, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        PointBuffer(*values)


@pytest.mark.parametrize(
    ("edges", "match"),
    [
        ((10, 50, 9, 51), r"got minlon=10 and maxlon=9, expected minlon < maxlon"),
        ((10, 50, 11, 50), r"got minlat=50 and maxlat=50, expected minlat < maxlat"),
        ((170, 0, 190, 1), r"got maxlon=190"),
        ((0, -91, 1, 0), r"got minlat=-91"),
    ],
)
def test_box_out_of_order_or_range(edges: Any, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        BBox(*edges)


def test_period_is_half_open_days() -> None:
    period = TemporalSpec.range("2022-06-01", date(2022, 9, 1))
    assert (period.start, period.end) == (date(2022, 6, 1), date(2022, 9, 1))
    assert TemporalSpec.year(2020) == TemporalSpec.range("2020-01-01", "2021-01-01")
    assert to_json(period) == {"start": "2022-06-01", "end": "2022-09-01"}


@pytest.mark.parametrize(
    ("start", "end", "match"),
    [
        ("2022-06-01", "2022-06-01", "expected start < end; the end day is not part"),
        ("2022-09-01", "2022-06-01", "expected start < end"),
        ("2022-6-1", "2022-09-01", "got start='2022-6-1'.*expected a calendar day"),
        ("20220601", "2022-09-01", "got start='20220601'"),
        ("2022-W40-1", "2022-12-01", "got start='2022-W40-1'"),
        ("2022-02-30", "2022-09-01", "got start='2022-02-30'.*expected a calendar day"),
        ("2022-06-01", 20220901, "got end=20220901 .int."),
    ],
)
def test_malformed_period(start: Any, end: Any, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        TemporalSpec.range(start, end)


@pytest.mark.parametrize("year", [0, 10_000, 2020.0, "2020", True])
def test_malformed_year(year: Any) -> None:
    with pytest.raises(SpecError, match="got year="):
        TemporalSpec.year(year)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"collection": ""}, "got collection=''"),
        ({"bands": "B4"}, "got bands='B4', expected names"),
        ({"bands": ("B4", "B4", "B2")}, "each once"),
        ({"bands": ()}, "at least one name"),
        ({"cloudy_pct": 101}, "got cloudy_pct=101, expected a percentage"),
        ({"composite": "medain"}, "unknown composite 'medain'.*did you mean 'median'"),
        ({"crs": 32633}, "got crs=32633"),
        ({"fill_value": math.nan}, "got fill_value=nan"),
        ({"reflectance_scale": 0}, "got reflectance_scale=0"),
        ({"reflectance_offset": math.inf}, "got reflectance_offset=inf"),
    ],
)
def test_sensor_refuses(values: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        SensorSpec(**{"collection": "c", "bands": ("r", "g", "b"), **values})


def test_fetch_overrides_only_what_it_states() -> None:
    sensor = SensorSpec("c", ("r", "g", "b"), cloudy_pct=5, composite="mosaic")
    changed = sensor.with_fetch(FetchSpec(scale_m=20))
    assert (changed.scale_m, changed.cloudy_pct, changed.composite) == (20, 5, "mosaic")


def test_output_choices() -> None:
    assert OutputSpec.pooled().pooling == "mean"
    assert OutputSpec("pooled") == OutputSpec.pooled("mean")
    assert OutputSpec.grid().pooling is None
    with pytest.raises(UnknownNameError, match="unknown pooling 'men'.*did you mean 'mean'"):
        OutputSpec.pooled("men")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown output mode 'gird'"):
        OutputSpec("gird")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="pooling='max' for a grid"):
        OutputSpec("grid", "max")


def test_specs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        PointBuffer(1, 2, 3).lon = 4  # type: ignore[misc]


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_a_box_that_builds_is_a_box(a: float, b: float, c: float, d: float) -> None:
    try:
        box = BBox(a, b, c, d)
    except SpecError:
        return
    assert -180 <= box.minlon < box.maxlon <= 180
    assert -90 <= box.minlat < box.maxlat <= 90
