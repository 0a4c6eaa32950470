"""Evaluate a model on labelled images, or score existing embeddings."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._version import __version__
from rs_embed.datasets.samples import Sample, read_samples
from rs_embed.errors import DatasetError, ImageryWarning, SpecError
from rs_embed.evaluation.baselines import colour_statistics, standardised
from rs_embed.evaluation.features import Embeddings, most_frequent, sides, square
from rs_embed.evaluation.nearest_neighbours import K
from rs_embed.evaluation.report import EvaluationReport, Row
from rs_embed.evaluation.scoring import Protocols, known_names
from rs_embed.evaluation.selection import Known, Selection, counts, select
from rs_embed.evaluation.tables import COLUMNS, read_table
from rs_embed.progress import Bar
from rs_embed.registry import checked_plan, find_model
from rs_embed.settings import Settings
from rs_embed.specs import check_whole, finite_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.models.base import Model, Plan

Source = str | os.PathLike[str]

POOLINGS = ("cls", "mean", "max")
SCALES = (1.0, 0.5, 0.25, 0.125)
# The images of a set are 8-bit already, and the scales say how large they are shown.
_FIXED = ("display", "image_size")


def evaluate(
    sources: Source | Sequence[Source],
    *,
    gsd_m: float | None = None,
    model: str = "scalemae",
    device: str = "auto",
    poolings: Sequence[str] = POOLINGS,
    scales: Sequence[float] = SCALES,
    protocols: Sequence[str] = ("knn",),
    baselines: bool = True,
    k: int = K,
    limit: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> EvaluationReport:
    """Return how well a model's embeddings separate the classes of a set.

    Every image is cut to its square middle and shown at several scales, and the model is given
    either the GSD of the image as it is shown, or always that of full resolution. References are
    the images of the split ``train``, queries the images of ``val``; of a source without splits the
    last 20 % of each class, in natural order of names, as `read_samples` holds them out.

    Parameters
    ----------
    sources : path or sequence of path
        Sets of labelled images, see `rs_embed.datasets.samples.read_samples`; several are one set.
    gsd_m : float, optional
        Ground metres per pixel; needed where images have no georeference.
    model : str
        Id or alias.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the model runs.
    poolings : sequence of str
        Among ``"cls"``, ``"mean"`` and ``"max"``.
    scales : sequence of float
        Shares of full resolution, above 0 to 1. Sides are rounded to whole patches; those below
        one patch, or that repeat another, are left out with a note.
    protocols : sequence of str
        ``"knn"``: the ``k`` nearest by cosine similarity vote with the weight
        exp(similarity / 0.07). ``"probe"``: logistic regression on standardised vectors, which
        needs the extra ``train``.
    baselines : bool
        Whether mean and standard deviation of the colours are scored too.
    k : int
        Neighbours that vote.
    limit : int, optional
        Most images of each class in each split, spread evenly over it.
    progress : bool, optional
        Whether a bar counts images on standard error; None: in a terminal or notebook.
    **options
        The model's own options. ``gsd`` decides which GSD it is given: ground metres per pixel,
        ``"relative"`` (224 / side), or a number for full resolution that grows as pixels do.

    Raises
    ------
    DatasetError
        If a set cannot be read; if labels are missing, or there is one class only, or a class in
        only one split, or fewer than ``k`` references; all of it before the model is loaded.
    SpecError
        If an argument is invalid.
    ModelError
        If the device is not available, or the weights are unusable.
    MissingDependencyError
        If the linear probe is requested and scikit-learn is not installed.

    Warns
    -----
    ImageryWarning
        If images were left out.
    """
    scored = Protocols.checked(protocols, k)
    found = find_model(model)
    settings = Settings.from_environ()
    plan = _plan(found, device, options, settings)
    poolings = known_names("pooling", poolings, found.description.outputs.get("pooled", ()))
    scales = _checked_scales(scales)
    if limit is not None:
        check_whole("limit", limit, 1)
    paths = _paths(sources)

    chosen, full_px, side_notes = _first_pass(paths, gsd_m, limit, scored, progress)
    encoder = plan.load()
    normal_px, side_at, left_out = sides(full_px, encoder.patch_size, scales)
    if not side_at:
        raise SpecError(f"got no scale that can be shown: {'; '.join(left_out)}")
    size = settings.scalemae_batch_size or plan.batch_size
    embeddings = Embeddings(
        encoder, plan.preparation, plan.gsd, normal_px, side_at, poolings, batch_size=size
    )
    keys: list[Hashable] = []
    colours = []
    with Bar(progress, unit="image", total=len(chosen.label_of)) as bar:
        for key, sample in _chosen_samples(paths, gsd_m, chosen):
            embeddings.add(sample)
            keys.append(key)
            if baselines:
                colours.append(colour_statistics(np.asarray(square(sample.image))))
            bar.advance()
    rows: list[Row] = []
    for views, pooling, vectors in embeddings.finish():
        view = views[0]
        row = {
            "features": "model",
            "pooling": pooling,
            "scale": view.scale,
            "side_px": view.side_px,
            "gsd": None,
            "input_res": embeddings.input_res(view),
        }
        accuracies = list(scored.rows(vectors, keys, chosen, row))
        stated = ("told" if view.own_gsd else "not told" for view in views)
        rows += [replace(one, gsd=gsd) for gsd in stated for one in accuracies]
    if baselines:
        rows += _baseline_rows(np.array(colours), keys, chosen, scored, normal_px)
    about = {
        "rs_embed_version": __version__,
        "sources": [os.fspath(path) for path in paths],
        "gsd_m": None if gsd_m is None else float(gsd_m),
        "limit": limit,
        "classes": counts(chosen),
        "protocol": scored.to_json(),
        "model": found.description.id,
        "gsd_policy": plan.gsd,
        **dict(encoder.provenance),
    }
    return EvaluationReport(tuple(rows), about, (*chosen.notes, *side_notes, *left_out))


def score_embeddings(
    source: Source,
    *,
    columns: tuple[str, str, str] = COLUMNS,
    protocols: Sequence[str] = ("knn",),
    k: int = K,
    limit: int | None = None,
) -> EvaluationReport:
    """Return how well existing embeddings separate classes.

    Parameters
    ----------
    source : path
        A Parquet or GeoParquet file.
    columns : tuple of str
        Its columns of the embedding, the label and the split (``train`` or ``val``; a table
        without one uses the last 20 % of the rows of each class as queries).
    protocols, k, limit
        As for `evaluate`.

    Raises
    ------
    DatasetError
        If the table cannot be read, vectors are not finite, or as for `evaluate`.
    MissingDependencyError
        If pyarrow, or for the linear probe scikit-learn, is not installed.
    """
    scored = Protocols.checked(protocols, k)
    if limit is not None:
        check_whole("limit", limit, 1)
    vectors, known = read_table(source, columns)
    chosen = select(known, limit=limit, least_references=scored.least_references)
    keys = [one.key for one in known if one.key in chosen.label_of]
    row = dict.fromkeys(("pooling", "scale", "side_px", "gsd", "input_res"))
    rows = scored.rows(vectors[np.array(keys)], keys, chosen, {**row, "features": columns[0]})
    about = {
        "rs_embed_version": __version__,
        "sources": [os.fspath(source)],
        "limit": limit,
        "classes": counts(chosen),
        "protocol": scored.to_json(),
    }
    return EvaluationReport(tuple(rows), about, chosen.notes)


def _plan(model: Model, device: str, options: Mapping[str, Any], settings: Settings) -> Plan:
    for name in _FIXED:
        if options.get(name) is not None:
            raise SpecError(
                f"got {name}={options[name]!r}, which an evaluation does not accept: images are "
                "shown as they are, at the sides that scales state; leave it out"
            )
    model.description.check_options(options, inspect.signature(evaluate).parameters)
    return checked_plan(model, options, device=device, settings=settings)


def _checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(scales, Sequence) or isinstance(scales, str) or not scales:
        raise SpecError(f"got scales={scales!r}, expected at least one in a sequence, such as (1,)")
    for scale in scales:
        if not 0 < finite_number("scale", scale) <= 1:
            raise SpecError(f"got the scale {scale!r}, expected more than 0 and at most 1")
    return tuple(dict.fromkeys(float(scale) for scale in scales))


def _paths(sources: Source | Sequence[Source]) -> list[Source]:
    paths = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not paths:
        raise DatasetError("got no source, expected a folder, an archive or several")
    places = [os.path.realpath(path) for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise DatasetError(
                f"got {os.fspath(paths[number])!r} twice: its images would be queries and "
                "references at once; name it once"
            )
    return paths


def _first_pass(
    paths: Sequence[Source],
    gsd_m: float | None,
    limit: int | None,
    scored: Protocols,
    progress: bool | None,
) -> tuple[Selection, int, list[str]]:
    """Return the selected images, their most frequent side, and notes; reads every image once."""
    known: list[Known] = []
    side_of: dict[Hashable, int] = {}
    with Bar(progress, unit="image to look at", total=None) as bar:
        for key, sample in _samples(paths, gsd_m):
            assumed = sample.split is None and sample.assumed_split is not None
            split = sample.split or sample.assumed_split
            known.append(Known(key, sample.name, sample.label, split, assumed))
            side_of[key] = min(sample.image.shape[:2])
            bar.advance()
    chosen = select(known, limit=limit, least_references=scored.least_references)
    found = [side_of[key] for key in chosen.label_of]
    side, notes = most_frequent(found), []
    if min(found) != max(found):
        notes.append(
            f"short sides run from {min(found)} to {max(found)} px: all images are shown as the "
            f"most frequent, {side} px"
        )
    return chosen, side, notes


def _samples(paths: Sequence[Source], gsd_m: float | None) -> Iterator[tuple[Hashable, Sample]]:
    for number, path in enumerate(paths):
        for sample in read_samples(path, gsd_m=gsd_m):
            yield (number, sample.name), sample


def _chosen_samples(
    paths: Sequence[Source], gsd_m: float | None, chosen: Selection
) -> Iterator[tuple[Hashable, Sample]]:
    """Yield the selected images; the first pass has already warned of what was left out."""
    left = len(chosen.label_of)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageryWarning)
        for key, sample in _samples(paths, gsd_m):
            if key in chosen.label_of:
                yield key, sample
                left -= 1
                if not left:
                    return
    raise DatasetError(
        f"{left} images disappeared during the evaluation; do not change the set while it runs"
    )


def _baseline_rows(
    colours: NDArray[np.float64],
    keys: Sequence[Hashable],
    chosen: Selection,
    scored: Protocols,
    side_px: int,
) -> Iterator[Row]:
    known = np.array([key in chosen.reference for key in keys])
    row = {"pooling": None, "scale": 1.0, "side_px": side_px, "gsd": None, "input_res": None}
    for features, vectors in (
        ("colours", colours),
        ("colours, z-scored", standardised(colours, colours[known])),
    ):
        yield from scored.rows(vectors, keys, chosen, {**row, "features": features})
