"""Which of many scenes a request uses, and how many pass each filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rs_embed.errors import NoImageryError, ProviderError
from rs_embed.geo.grid import Grid
from rs_embed.providers.scenes.products import SAME_TIME_S
from rs_embed.providers.scenes.scene import Scene, grid_boxes, touch
from rs_embed.specs import SensorSpec, TemporalSpec

# Tolerance: share of the sides of a footprint, and of the area of an outline.
_NEARLY = 0.05
_NAME_BANDS = "name the bands with sensor=SensorSpec(collection=..., bands=(red, green, blue))"


@dataclass(frozen=True, eq=False)
class Selection:
    """The scenes that a request uses, oldest first, and how many passed each filter."""

    scenes: tuple[Scene, ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Filter:
    """One step of a selection; ``fix`` gets the scenes that came to it."""

    key: str
    passes: Callable[[Scene], bool]
    shown: str
    fix: Callable[[Sequence[Scene]], str] = field(default=lambda _: "")


def select_scenes(
    scenes: Sequence[Scene],
    sensor: SensorSpec,
    grid: Grid,
    temporal: TemporalSpec | None,
    *,
    where: str,
) -> Selection:
    """Return the scenes for a place and period, without reprocessed duplicates.

    Scenes that lack one of the sensor's bands are left out, and those with as much cloud as
    ``cloudy_pct`` or more; scenes that state no cloud stay, and 100 and None do not filter. The
    period is half-open, of UTC days, and undated scenes never pass it; None is any time. ``where``
    is the name of the source in messages.

    Raises
    ------
    NoImageryError
        If none remains; it states how many passed each filter, and what exists.
    """
    filters = [_has_bands(sensor.bands), _touches(grid)]
    if temporal is not None:
        filters.append(_within(temporal))
    if sensor.cloudy_pct is not None and sensor.cloudy_pct < 100:
        filters.append(_less_cloud(sensor.cloudy_pct))
    scenes = distinct_scenes(scenes)
    counts = {"scenes": len(scenes)}
    steps: list[str] = []
    left = scenes
    undated = 0
    for step in filters:
        before, left = left, [scene for scene in left if step.passes(scene)]
        if step.key == "period":
            undated = sum(scene.acquired is None for scene in before)
        counts[step.key] = len(left)
        steps.append(f"{len(left)} {step.shown}")
        if not left:
            raise NoImageryError(
                f"no imagery for the place and period in {where!r}: of {len(scenes)} scenes "
                f"{', '.join(steps)} {step.fix(before)}"
            )
    newest = newest_products(left)
    counts["newest"] = len(newest)
    unstated = sum(scene.cloud_pct is None for scene in newest)
    notes = []
    if filters[-1].key == "cloud" and unstated:
        notes.append(
            f"cloudy_pct={sensor.cloudy_pct:g} was not applied to {unstated} scenes that state no "
            "cloud cover"
        )
    if undated:
        notes.append(f"{undated} scenes without a date were left out, since a period was requested")
    return Selection(tuple(sorted(newest, key=lambda s: s.order)), counts, tuple(notes))


def distinct_scenes(scenes: Iterable[Scene]) -> list[Scene]:
    """Return ``scenes`` without those that are listed again: of the same id and files."""
    return list({(s.id, *sorted(b.path for b in s.bands.values())): s for s in scenes}.values())


def newest_products(scenes: Iterable[Scene]) -> list[Scene]:
    """Return ``scenes`` with only the newest processing of each acquisition.

    Two are the same acquisition only if their products, times and footprints agree: the parts of a
    tile that is split between datastrips have similar names, and all of them are needed.
    """
    newest: dict[tuple[str, ...], list[Scene]] = {}
    for scene in scenes:
        rivals = newest.setdefault(scene.product.key or (scene.id, str(id(scene))), [])
        same = [rival for rival in rivals if _same_pixels(scene, rival)]
        if all(rival.product.version < scene.product.version for rival in same):
            rivals[:] = [*(rival for rival in rivals if rival not in same), scene]
    return [scene for rivals in newest.values() for scene in rivals]


def _same_pixels(one: Scene, other: Scene) -> bool:
    """Return whether two scenes are processings of one acquisition of one place."""
    if not one.product.may_reprocess(other.product):
        return False
    if one.acquired is None or other.acquired is None:
        return False
    if abs((one.acquired - other.acquired).total_seconds()) > SAME_TIME_S:
        return False
    if one.is_file and other.is_file and one.product.baseline == other.product.baseline:
        return False  # files of parts may both cover the tile, with nodata
    return _same_footprint(one, other)


def _same_footprint(one: Scene, other: Scene) -> bool:
    """Return whether two footprints nearly agree: their boxes, and their outlines if known."""
    ours, theirs = one.footprint or (), other.footprint or ()
    if not ours or len(ours) != len(theirs):
        return False
    edges = np.array([(a, b) for a, b in zip(ours, theirs, strict=True)])
    sides = np.abs(edges[:, 0, 2:] - edges[:, 0, :2]).max(axis=0)
    if (np.abs(edges[:, 0] - edges[:, 1]) > _NEARLY * np.tile(sides, 2)).any():
        return False
    if one.outline is None or other.outline is None:
        return True
    off = np.abs(np.subtract(one.outline, other.outline))
    return bool((off <= _NEARLY * np.array([one.outline[0], *sides])).all())


def _has_bands(bands: Sequence[str]) -> _Filter:
    return _Filter(
        "bands",
        lambda scene: scene.find(bands) is not None,
        f"have the bands {', '.join(bands)}",
        lambda left: f"({_bands_that_exist(left)}); {_NAME_BANDS}",
    )


def check_has_mask(sensor: SensorSpec, where: str) -> None:
    """Raise `ProviderError` for a cloud mask that no scene on files has."""
    if sensor.cloud_mask == "cloud_score_plus":
        raise ProviderError(
            f"got cloud_mask='cloud_score_plus', which only backend='gee' has, not {where!r}; use "
            "cloud_mask='scl' or leave it out"
        )


def scenes_fit_for(sensor: SensorSpec, scenes: Sequence[Scene], where: str) -> list[Scene]:
    """Return the scenes that have the sensor's bands.

    Raises
    ------
    ProviderError
        If none has, or none of them has the cloud mask; ``where`` names the source.
    """
    check_has_mask(sensor, where)
    fitting = [scene for scene in scenes if scene.find(sensor.bands) is not None]
    if not fitting:
        raise ProviderError(
            f"none of {len(scenes)} scenes examined in {where!r} has the bands "
            f"{', '.join(sensor.bands)} ({_bands_that_exist(scenes)}); {_NAME_BANDS}"
        )
    if sensor.cloud_mask == "scl" and not any(scene.scl for scene in fitting):
        raise ProviderError(
            f"got cloud_mask='scl', but none of {len(fitting)} scenes in {where!r} has an "
            "asset 'scl'; leave cloud_mask out"
        )
    return fitting


def _bands_that_exist(scenes: Iterable[Scene]) -> str:
    """Return a phrase that names the bands of ``scenes``."""
    scenes = list(scenes)
    names = sorted({name for scene in scenes if scene.named for name in scene.bands})
    counts = sorted({len(scene.bands) for scene in scenes if not scene.named})
    parts = [f"the bands that exist are {', '.join(names)}"] if names else []
    if counts:
        parts.append(f"files without band names have {' or '.join(map(str, counts))} bands")
    return "; ".join(parts) or "there are none"


def _touches(grid: Grid) -> _Filter:
    place = grid_boxes(grid)
    return _Filter(
        "place", lambda scene: touch(scene.footprint, place), "touch the place", _where_they_are
    )


def _where_they_are(scenes: Sequence[Scene]) -> str:
    known = [box for scene in scenes for box in scene.footprint or ()]
    west, south, east, north = zip(*known, strict=True)
    return (
        f"(they are within lon {min(west):.4f} to {max(east):.4f}, lat {min(south):.4f} to "
        f"{max(north):.4f}); choose another place"
    )


def _within(period: TemporalSpec) -> _Filter:
    def passes(scene: Scene) -> bool:
        day = scene.acquired
        return day is not None and period.start <= day.date() < period.end

    return _Filter("period", passes, f"are in {period.start} to {period.end}", _when_they_are)


def _when_they_are(scenes: Sequence[Scene]) -> str:
    days = [scene.acquired.date() for scene in scenes if scene.acquired is not None]
    undated = f"{len(scenes) - len(days)} have no date"
    if not days:
        return f"({undated}); add dates to them, or keep them apart from scenes that have one"
    more = f", {undated}" if len(days) < len(scenes) else ""
    return f"(they are from {min(days)} to {max(days)}{more}); choose another period"


def _less_cloud(cloudy_pct: float) -> _Filter:
    def clearest(scenes: Sequence[Scene]) -> str:
        least = min(scene.cloud_pct for scene in scenes if scene.cloud_pct is not None)
        return f"(the clearest has {least:.3g} %); raise cloudy_pct"

    return _Filter(
        "cloud",
        lambda scene: scene.cloud_pct is None or scene.cloud_pct < cloudy_pct,
        f"have less than {cloudy_pct:g} % cloud",
        clearest,
    )
