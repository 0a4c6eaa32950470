"""Where the shards of a run are made: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rs_embed.embedding.pickling import pickled
from rs_embed.errors import SpecError, UnknownNameError
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
        Processes that run the model. None is this process (local), or one for each GPU, else as
        many as the cores allow (Ray).
    ray_address : str or None
        Address of the cluster, see ``ray.init``; None is ``RAY_ADDRESS``, else a new one here.
    gpus : bool
        Whether workers on Ray may take GPUs.

    Raises
    ------
    SpecError
        If a value is invalid, or an address is given without Ray.
    MissingDependencyError
        If Ray is not installed.
    """

    name: Literal["local", "ray"] = "local"
    workers: int | None = None
    ray_address: str | None = None
    gpus: bool = True

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
        if self.name == "local" and self.workers is None:
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
                gpus=self.gpus,
            )
        else:
            made = ProcessPool(sent, self.workers or 1)
        with made as pool:
            yield from supervised(pool, work, parcels)


LOCAL = Engine()
