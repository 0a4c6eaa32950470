"""Vectors and classes in, accuracy out, by one or more protocols."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import ModelError, SpecError, UnknownNameError
from rs_embed.evaluation.nearest_neighbours import TEMPERATURE, nearest_neighbours
from rs_embed.evaluation.probe import check_installed, linear_probe
from rs_embed.evaluation.report import Row
from rs_embed.evaluation.selection import Selection
from rs_embed.specs import check_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOLS = ("knn", "probe")


@dataclass(frozen=True)
class Protocols:
    """How vectors are scored."""

    names: tuple[str, ...]  # among "knn" and "probe"
    k: int  # neighbours that vote

    @classmethod
    def checked(cls, names: Sequence[str], k: int) -> Protocols:
        """Return the protocols, checked; see `rs_embed.evaluation.evaluate`."""
        check_whole("k", k, 1)
        checked = known_names("protocol", names, PROTOCOLS)
        if "probe" in checked:
            check_installed()
        return cls(checked, k)

    @property
    def least_references(self) -> int:
        """References that they need."""
        return self.k if "knn" in self.names else 1

    def to_json(self) -> dict[str, Any]:
        """Return the protocols as JSON values."""
        return {"names": list(self.names), "k": self.k, "temperature": TEMPERATURE}

    def rows(
        self,
        vectors: NDArray[Any],
        keys: Sequence[Hashable],
        chosen: Selection,
        row: Mapping[str, Any],
    ) -> Iterator[Row]:
        """Yield the accuracy by each protocol, with the other columns of the row."""
        number = {label: i for i, label in enumerate(chosen.classes)}
        classes = np.array([number[chosen.label_of[key]] for key in keys], np.intp)
        known = np.array([key in chosen.reference for key in keys])
        if not np.isfinite(vectors).all():
            raise ModelError("the embeddings are not all finite; check the weights")
        predict: dict[str, Callable[..., NDArray[np.intp]]] = {
            "knn": partial(nearest_neighbours, k=self.k),
            "probe": linear_probe,
        }
        for name in self.names:
            found = predict[name](vectors[known], classes[known], vectors[~known])
            accuracy = float((found == classes[~known]).mean())
            yield Row(
                **row, protocol=name, accuracy=accuracy, references=int(known.sum()),
                queries=int((~known).sum()),
            )  # fmt: skip


def known_names(kind: str, names: Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Return each of ``names`` once; raise `SpecError` where one is not among ``choices``."""
    if isinstance(names, str) or not names:
        raise SpecError(f"got {names!r} for {kind}, expected a sequence of {', '.join(choices)}")
    for name in names:
        if name not in choices:
            raise UnknownNameError.among(kind, name, choices)
    return tuple(dict.fromkeys(names))
