"""Classes of places and of the cells of maps, from labelled embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from rs_embed import _optional
from rs_embed.addresses import path_of
from rs_embed.classification.class_maps import (
    CLASS_MAPS,
    CLASS_NODATA,
    class_map,
    described,
    write_class_map,
)
from rs_embed.classification.domain import Domain, domain_notes
from rs_embed.classification.features import Making, features_of, making_of
from rs_embed.errors import (
    CheckpointError,
    ExportError,
    Note,
    RsEmbedWarning,
    SpecError,
    UnknownNameError,
    give_warnings,
    some,
)
from rs_embed.files.formats import UNREADABLE, Format, Formats, unreadable
from rs_embed.files.writing import written
from rs_embed.maps.sampling import placed_map

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_require = partial(_optional.require, extra="classify", purpose="a classifier")
_FILES = Formats(
    "a classifier", Format(name="skops", suffixes=(".skops",), media_type="application/zip")
)


@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A fitted estimator that knows what it was trained on; made by `fit_classifier`.

    Attributes
    ----------
    estimator : object
        The fitted estimator; its classes are numbers in ``classes``.
    classes, counts : list
        The labels, in order, and the training rows of each.
    making : Making
        How the training set was made.
    domain : Domain
        Mean and spread of its embeddings.
    """

    estimator: Any
    classes: list[Any]
    counts: list[int]
    making: Making
    domain: Domain

    def __repr__(self) -> str:
        numbers = (f"{c} ({n})" for c, n in zip(self.classes, self.counts, strict=True))
        return f"Classifier: {some(list(numbers), 12)}"

    def predict(self, source: Any) -> NDArray[Any]:
        """Return the label of each row ``(N,)``, None for rows without an embedding.

        Parameters
        ----------
        source : table, path, xarray.DataArray, or array
            As for `fit_classifier`.

        Raises
        ------
        SpecError
            If it was not made like the training set: other weights, options or GSD.

        Warns
        -----
        RsEmbedWarning
            If its embeddings or colours are unlike those of the training set.
        """
        features = features_of(source)
        self._check(features.making, features.rows.shape[1], "table")
        known = np.isfinite(features.rows).all(axis=1)
        found = np.full(len(known), None, object)
        if known.any():
            codes, outside = self._codes(features.rows[known])
            found[known] = np.array(self.classes, object)[codes]
            share = float(outside.mean())
            give_warnings(domain_notes(features.making, self.making, share, "table"))
        return found

    def predict_map(
        self,
        source: str | os.PathLike[str] | xr.DataArray,
        output: str | os.PathLike[str] | None = None,
        *,
        mask_outside: bool = False,
    ) -> xr.DataArray:
        """Return the class of each token of a map, which is read block by block.

        Parameters
        ----------
        source : path or xarray.DataArray
            A map that :func:`rs_embed.open_map` opens, or such an array: ``(d, y, x)``, with CRS.
        output : path, optional
            A ``.tif`` to write: a cloud-optimised GeoTIFF with a colour table, and the names of
            the classes in the tag ``classes`` of its band and in ``<output>.aux.xml``.
        mask_outside : bool
            Whether cells whose token is outside the range of the training set become nodata.

        Returns
        -------
        xarray.DataArray
            ``(y, x)`` uint8: number in ``classes``, 255 for cells without a token. ``attrs`` has
            ``flag_values`` and ``flag_meanings`` as in CF, and ``meta``, JSON; ``outside`` there
            is the share of tokens outside the range of the training set.

        Raises
        ------
        SpecError, ExportError
            As `predict`; if ``output`` cannot be written, or is the map itself.

        Warns
        -----
        RsEmbedWarning
            As `predict`; the meta records it.
        """
        target = None if output is None else path_of(output)
        if target is not None:
            CLASS_MAPS.check(target)
            if isinstance(source, str | os.PathLike) and target.resolve() == Path(source).resolve():
                raise ExportError(f"cannot write {target}: it is the map itself; choose another")
        placed = placed_map(source)
        made = making_of(placed.making)
        self._check(made, placed.array.sizes["d"], "map")
        codes, outside = class_map(placed, self._codes, mask_outside=mask_outside)
        notes = domain_notes(made, self.making, outside, "map")
        meta = {
            "outside": round(outside, 4), "mask_outside": mask_outside,
            "warnings": [note.message for note in notes],
            "estimator": " ".join(repr(self.estimator).split()),
            "map": asdict(made), "training": asdict(self.making), "counts": self.counts,
        }  # fmt: skip
        found = codes.assign_attrs(described(self.classes, meta))
        if target is not None:
            write_class_map(target, found)
        give_warnings(notes)
        return found

    def _check(self, made: Making, dimensions: int, what: str) -> None:
        made.check(self.making, what)
        if dimensions != len(self.domain.mean):
            raise SpecError(
                f"got a {what} of {dimensions} dimensions, expected {len(self.domain.mean)} as in "
                f"the training set; embed the {what} with its model"
            )

    def _codes(self, rows: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the number of the class of each row, and which rows are outside the domain."""
        return np.asarray(self.estimator.predict(rows)).astype(np.uint8), self.domain.outside(rows)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.skops``, which loads without running code, and return the path."""
        target = path_of(path)
        _FILES.check(target)
        content = {**vars(self), "making": asdict(self.making), "domain": asdict(self.domain)}
        content["sklearn"] = _require("sklearn").__version__
        with written(target) as unfinished:
            _require("skops.io").dump(content, unfinished)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, trusted: Sequence[str] = ()) -> Classifier:
        """Return a classifier that `save` wrote.

        Parameters
        ----------
        path : path
            A ``.skops``.
        trusted : sequence of str
            Types beyond those that skops knows to be safe, by full name, that may be made.

        Raises
        ------
        CheckpointError
            If it holds other types, which could run any code.
        ExportError
            If it cannot be read.

        Warns
        -----
        RsEmbedWarning
            If it was saved with another version of scikit-learn.
        """
        source, skops = path_of(path), _require("skops.io")
        _FILES.of(source)
        try:
            unsafe = sorted({*skops.get_untrusted_types(file=source)} - {*trusted})
            content = {} if unsafe else skops.load(source, trusted=list(trusted))
            if content:
                saved = content.pop("sklearn")
                content["making"] = Making(**content["making"])
                content["domain"] = Domain(**content["domain"])
                found = cls(**content)
        except (*UNREADABLE, OSError, BadZipFile) as exc:
            raise unreadable(source, exc, "a classifier") from exc
        if unsafe:
            raise CheckpointError(
                f"{source} holds {some(unsafe)}, expected types that cannot run code; if you trust "
                f"its author: Classifier.load({str(source)!r}, trusted={unsafe})"
            )
        installed = _require("sklearn").__version__
        if saved != installed:
            message = (
                f"{source.name} was saved with scikit-learn {saved}, and {installed} may predict "
                "otherwise; fit the classifier again"
            )
            give_warnings([Note(message, RsEmbedWarning)])
        return found


def fit_classifier(training: Any, labels: Any, *, estimator: Any = None) -> Classifier:
    """Return a classifier that is fitted to labelled embeddings.

    Parameters
    ----------
    training : table, path, xarray.DataArray, or array
        A table of `embed_table` or `load_export`, or its file; tokens of a map at places
        (`sample_points`, `zonal_mean`); or ``(N, D)``, about which nothing else is known.
    labels : str or sequence
        Name of a column of the table, or the label of each row: text or integers; None or NaN for
        none.
    estimator : object, optional
        A classifier of scikit-learn; a clone is fitted. By default
        ``make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))``.

    Raises
    ------
    SpecError
        If labels are not classes, or the embeddings were not made alike; `UnknownNameError` for an
        unknown column.
    MissingDependencyError
        If the extra ``classify`` is not installed.

    Warns
    -----
    RsEmbedWarning
        If rows have no label or no embedding; they are left out.
    """
    pandas, sklearn = _require("pandas"), _require("sklearn.base")
    features = features_of(training)
    if isinstance(labels, str):
        columns = {} if features.frame is None else features.frame
        if labels not in columns:
            raise UnknownNameError.among("column", labels, map(str, columns), of="the training set")
        labels = columns[labels]
    column = pandas.Series(list(labels)).convert_dtypes()
    types = pandas.api.types
    if len(column) != len(features.rows) or not (
        types.is_string_dtype(column) or types.is_integer_dtype(column)
    ):
        raise SpecError(
            f"got {len(column)} labels of type {column.dtype} for {len(features.rows)} embeddings, "
            "expected one for each: text or integers"
        )
    labelled = column.notna().to_numpy()
    used = labelled & np.isfinite(features.rows).all(axis=1)
    left_out = {"have no label": ~labelled, "have a label but no embedding": labelled & ~used}
    messages = [f"{rows.sum()} rows {why}" for why, rows in left_out.items() if rows.any()]
    if messages:
        message = f"{' and '.join(messages)}, of {len(column)}; they are left out"
        give_warnings([Note(message, RsEmbedWarning)])
    codes, classes = pandas.factorize(column[used], sort=True)
    if not 2 <= len(classes) <= CLASS_NODATA:
        raise SpecError(
            f"got {len(classes)} classes in {used.sum()} labelled embeddings, expected 2 to "
            f"{CLASS_NODATA}"
        )
    if estimator is not None and (
        isinstance(estimator, type)
        or not hasattr(estimator, "predict")
        or not sklearn.is_classifier(estimator)
    ):
        raise SpecError(
            f"got estimator={estimator!r:.100}, expected a classifier of scikit-learn, such as "
            "RandomForestClassifier(): others do not learn the labels"
        )
    rows = features.rows[used]
    fitted = sklearn.clone(_default() if estimator is None else estimator).fit(rows, codes)
    counts = np.bincount(codes).tolist()
    return Classifier(fitted, classes.tolist(), counts, features.making, Domain.of(rows))


def _default() -> Any:
    _require("sklearn.linear_model")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
