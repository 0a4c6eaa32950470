"""Which images are references and which are queries, checked before any model runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rs_embed.datasets.samples import in_order
from rs_embed.errors import DatasetError, some


@dataclass(frozen=True)
class Known:
    """One image or vector of a set, before it is read."""

    key: Hashable  # unique in the set
    name: str  # by which the set is ordered
    label: str | None
    split: str | None  # "train", "val", or None where nothing states it
    assumed: bool = False  # whether `datasets.held_out` gave the split, since the set states none


@dataclass(frozen=True)
class Selection:
    """The labelled images or vectors that are used."""

    label_of: dict[Hashable, str]  # class of each key
    reference: frozenset[Hashable]  # keys of the references; the others are queries
    classes: tuple[str, ...]  # sorted
    notes: tuple[str, ...]  # what was assumed

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return len(self.label_of) - len(self.reference)


def select(known: Sequence[Known], *, limit: int | None, least_references: int) -> Selection:
    """Return the references and queries of a set.

    At most ``limit`` of each class in each split are used, spread evenly over the natural order of
    names: ``forest_9`` comes before ``forest_10``.

    Raises
    ------
    DatasetError
        If labels are missing, or some have a split and some have none; if there is one class only,
        or a class in only one split, or too few references.
    """
    unlabelled = [one.name for one in known if not one.label]
    if unlabelled:
        raise DatasetError(
            f"{len(unlabelled)} of {len(known)} have no label ({some(unlabelled)}), expected a "
            "class for each: a folder, or the column class or label"
        )
    notes = _check_splits(known)
    groups: dict[tuple[str, str], list[Known]] = defaultdict(list)
    for one in sorted(known, key=lambda one: in_order(one.name)):
        groups[one.label or "", one.split or ""].append(one)
    _check_classes(groups)
    for group in groups.values():
        if limit is not None and len(group) > limit:
            group[:] = [group[i * len(group) // limit] for i in range(limit)]
    reference = frozenset(
        one.key for (_, split), group in groups.items() if split == "train" for one in group
    )
    if len(reference) < least_references:
        raise DatasetError(
            f"got {len(reference)} references, expected at least k={least_references}; lower k, or "
            "add images"
        )
    label_of = {one.key: label for (label, _), group in groups.items() for one in group}
    return Selection(label_of, reference, tuple(sorted(set(label_of.values()))), notes)


def _check_splits(known: Sequence[Known]) -> tuple[str, ...]:
    """Return what was assumed of the splits; raise where it cannot be for all of them."""
    without = [one.name for one in known if one.assumed or one.split is None]
    if not without:
        return ()
    if len(without) < len(known) or any(one.split is None for one in known):
        raise DatasetError(
            f"{len(without)} of {len(known)} have no split ({some(without)}); state it for all, "
            "or for none and label them all"
        )
    note = (
        "the set states no split: within each class the last fifth in natural order of names is "
        "held out, which leaks least where neighbouring numbers overlap"
    )
    return (note,)


def _check_classes(groups: dict[tuple[str, str], list[Known]]) -> None:
    train, val = ({label for label, name in groups if name == split} for split in ("train", "val"))
    if len(train | val) < 2:
        raise DatasetError(
            f"got one class only ({', '.join(train | val)}), expected at least two to tell apart"
        )
    for only, missing, present in ((train - val, "val", "train"), (val - train, "train", "val")):
        if only:
            raise DatasetError(
                f"{len(only)} of {len(train | val)} classes are in {present} but not in {missing} "
                f"({some(sorted(only))}), expected each in both; add images of them or remove "
                "them"
            )


def counts(selection: Selection) -> dict[str, dict[str, int]]:
    """Return how many references and queries each class has."""
    references = Counter(selection.label_of[key] for key in selection.reference)
    every = Counter(selection.label_of.values())
    return {
        label: {"references": references[label], "queries": every[label] - references[label]}
        for label in selection.classes
    }
