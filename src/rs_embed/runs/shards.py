"""Shards: the items of a run that are made together, and kept together or not at all."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Shard:
    """Some items of a run. Picklable, as far as its items are.

    Attributes
    ----------
    keys : tuple of str
        Names of the items, see `rs_embed.runs.run.DurableRun`.
    items : tuple
        What the work needs to know of each.
    """

    keys: tuple[str, ...]
    items: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, numbers: Iterable[int]) -> Shard:
        """Return a shard of some of the items."""
        numbers = tuple(numbers)
        return Shard(
            tuple(self.keys[number] for number in numbers),
            tuple(self.items[number] for number in numbers),
        )


class Work(Protocol):
    """What is done with the items of shards. Picklable.

    The results of a shard depend on its items alone, down to the last bit, and not on other shards
    or on the engine.
    """

    def stream(self, shards: Iterable[Shard]) -> Generator[tuple[Shard, list[Any]], None, None]:
        """Yield each shard with the results of its items, in order; later ones are read ahead."""

    def lost(self, item: Any, reason: str) -> Any:
        """Return the result of an item whose process ended; ``reason`` says how."""


@runtime_checkable
class WorkInSteps(Work, Protocol):
    """Work on shards whose pixels do not overlap: they can be read in other processes."""

    def read(self, shard: Shard) -> Any:
        """Return what `finish` needs of a shard, read and prepared. Picklable."""

    def finish(self, shard: Shard, read: Any) -> list[Any]:
        """Return the results of a shard from what `read` returned."""


def shards_of(
    keys: Iterable[str], wanted: Collection[str], *, size: int
) -> Iterator[tuple[str, ...]]:
    """Yield those of ``keys`` that are ``wanted``, in order, in groups.

    Groups are cut by the position among all keys: what is done already does not move the others.
    """
    keys = list(keys)
    for start in range(0, len(keys), size):
        if group := tuple(key for key in keys[start : start + size] if key in wanted):
            yield group
