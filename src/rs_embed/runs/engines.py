"""Where the shards of a run are made: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rs_embed.embedding.pickling import pickled
from rs_embed.errors import SpecError, UnknownNameError
from rs_embed.models.devices import card_number, cards_of, resolve_device
from rs_embed.runs.ray_pool import require_ray
from rs_embed.runs.shards import Shard, Work, WorkInSteps
from rs_embed.specs import whole

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where shards are made; it does not change results.

    Attributes
    ----------
    name : {"local", "ray"}
        This machine, or a Ray cluster.
    workers : int or None
        Processes that run the model. None is this process (local; one for each card of
        ``device``), or one for each GPU, else as many as the cores allow (Ray).
    ray_address : str or None
        Address of the cluster, see ``ray.init``; None is ``RAY_ADDRESS``, else a new one here.
    device : str, list of str or torch.device
        Where the model runs, as stated: one device, or several cards (``"cuda:0,1"``).

    Raises
    ------
    SpecError
        If a value is invalid, an address is given without Ray, or cards with it.
    ModelError
        If one of several cards is not available.
    MissingDependencyError
        If Ray is not installed.
    """

    name: Literal["local", "ray"] = "local"
    workers: int | None = None
    ray_address: str | None = None
    device: Any = "auto"

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise UnknownNameError.among("engine", self.name, ENGINES)
        if self.workers is not None:
            whole("workers", self.workers, 1)
        if self.name == "ray":
            require_ray()
        if self.ray_address is not None and self.name != "ray":
            raise SpecError(
                f"got ray_address={self.ray_address!r} with engine={self.name!r}, expected "
                "engine='ray' (--engine ray)"
            )
        cards = self.cards
        if self.name == "ray" and (cards or card_number(self.device) is not None):
            raise SpecError(
                f"got device={self.device!r} with engine='ray', which gives each worker a card of "
                "its own; leave device out, and state how many with workers (--workers)"
            )
        if cards and self.workers is not None and self.workers < len(cards):
            raise SpecError(
                f"got workers={self.workers} for the {len(cards)} cards of device="
                f"{self.device!r}, expected at least one for each; leave workers out"
            )
        for card in cards:
            resolve_device(card)

    @property
    def cards(self) -> tuple[str, ...]:
        """The cards, one for each process in turns; empty if one device is stated."""
        return cards_of(self.device)

    @property
    def own_device(self) -> Any:
        """The device of the model in each process, which sees one of several cards."""
        return "cuda" if self.cards else self.device

    def results(
        self, work: Work, parcels: Iterable[Iterable[Shard]]
    ) -> Generator[tuple[Shard, list[Any]], None, None]:
        """Return an iterator over shards with the results of their items, as they come.

        Shards of one parcel are made by one process, if possible, since their pixels overlap.

        Raises
        ------
        EngineError
            If workers cannot be started or reached, or keep ending.
        """
        if self.name == "local" and self.workers is None and not self.cards:
            return work.stream(chain.from_iterable(parcels))
        return self._elsewhere(work, parcels)

    def _elsewhere(
        self, work: Work, parcels: Iterable[Iterable[Shard]]
    ) -> Generator[tuple[Shard, list[Any]], None, None]:
        from rs_embed.runs.processes import ProcessPool
        from rs_embed.runs.ray_pool import RayPool
        from rs_embed.runs.supervision import supervised

        sent = pickled(work)
        if self.name == "ray":
            made: ProcessPool | RayPool = RayPool(
                sent,
                self.workers,
                self.ray_address,
                in_steps=isinstance(work, WorkInSteps),
                gpus=str(self.device) != "cpu",
            )
        else:
            made = ProcessPool(sent, self.workers or len(self.cards) or 1, self.cards)
        with made as pool:
            yield from supervised(pool, work, parcels)


LOCAL = Engine()
