"""Shards in other processes: none is lost with its process, and an item that ends it is found."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rs_embed.errors import EngineError
from rs_embed.runs.shards import Shard, Work

# Processes that may end in a row before anything is made: then it is not one item's fault.
_MOST_LOSSES = 12


@dataclass(frozen=True)
class Lost:
    """The outcome of a shard whose process ended; ``reason`` says how."""

    reason: str


class Pool(Protocol):
    """Processes that work on shards. A process that ends is replaced.

    Attributes
    ----------
    lanes : int
        Processes with a model.
    depth : int
        Shards that each may have at once.
    """

    lanes: int
    depth: int

    def submit(self, lane: int, shard: Shard) -> None:
        """Begin a shard."""

    def wait(self) -> Sequence[tuple[int, Shard, list[Any] | Lost]]:
        """Return lane, shard and outcome of what has ended, as soon as there is something.

        Raises
        ------
        EngineError
            If processes cannot be started; and whatever the work raises.
        """


def supervised(
    pool: Pool, work: Work, parcels: Iterable[Iterable[Shard]]
) -> Generator[tuple[Shard, list[Any]], None, None]:
    """Yield shards with the results of their items, as they come.

    Shards of one parcel go to one process, one after the other. A shard whose process ended is
    tried again; after the second time alone, when nothing else is under way; after the third time
    item by item. An item that then ends its process twice becomes `Work.lost`, and the others are
    made together.

    Raises
    ------
    EngineError
        If processes end one after the other, and nothing is made.
    """
    again: deque[Shard] = deque()
    suspects: list[Shard] = []
    losses: Counter[str] = Counter()
    fresh = iter(parcels)
    parcel_of: list[Iterator[Shard]] = [iter(()) for _ in range(pool.lanes)]
    under_way = [0] * pool.lanes
    in_a_row = 0

    def next_of(lane: int) -> Shard | None:
        """Return the next shard of a lane."""
        while True:
            if again:
                return again.popleft()
            if (shard := next(parcel_of[lane], None)) is not None:
                return shard
            if (parcel := next(fresh, None)) is None:
                return None
            parcel_of[lane] = iter(parcel)

    while True:
        # One for each before a second for any: what is left at the end is shared.
        for filled in range(pool.depth):
            for lane in range(pool.lanes):
                if under_way[lane] == filled and (shard := next_of(lane)) is not None:
                    pool.submit(lane, shard)
                    under_way[lane] += 1
        if not any(under_way):
            break
        outcomes = pool.wait()
        reasons = [outcome.reason for *_, outcome in outcomes if isinstance(outcome, Lost)]
        in_a_row = in_a_row + 1 if reasons else 0
        if in_a_row == _MOST_LOSSES:
            raise EngineError(
                f"{in_a_row} worker processes ended in a row without a result, the last one "
                f"{reasons[0]}; if memory is short, state fewer workers (--workers)"
            )
        for lane, shard, outcome in outcomes:
            under_way[lane] -= 1
            if isinstance(outcome, Lost):
                losses[shard.keys[0]] += 1
                (again if losses[shard.keys[0]] == 1 else suspects).append(shard)
            else:
                yield shard, outcome
    for shard in suspects:
        yield shard, _suspect(pool, work, shard)


def _suspect(pool: Pool, work: Work, shard: Shard) -> list[Any]:
    """Return the results of a shard that may end its process."""
    outcome = _alone(pool, shard)
    if not isinstance(outcome, Lost):
        return outcome
    results: dict[int, Any] = {}
    for number, item in enumerate(shard.items):
        one = shard.part([number])
        if isinstance(_alone(pool, one), Lost) and isinstance(last := _alone(pool, one), Lost):
            results[number] = work.lost(item, last.reason)
    good = [number for number in range(len(shard)) if number not in results]
    if good:
        outcome = _alone(pool, shard.part(good))
        if isinstance(outcome, Lost):
            outcome = [work.lost(shard.items[number], outcome.reason) for number in good]
        results.update(zip(good, outcome, strict=True))
    return [results[number] for number in range(len(shard))]


def _alone(pool: Pool, shard: Shard) -> list[Any] | Lost:
    pool.submit(0, shard)
    while not (outcomes := pool.wait()):
        pass
    return outcomes[0][2]
