"""Work whose result is the CUDA devices that its process sees; imports little."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from rs_embed.runs.shards import Shard


@dataclass(frozen=True)
class VisibleCards:
    """See `rs_embed.runs.shards.Work`."""

    def stream(self, shards: Iterable[Shard]) -> Generator[tuple[Shard, list[Any]], None, None]:
        for shard in shards:
            yield shard, [os.environ.get("CUDA_VISIBLE_DEVICES")]

    def lost(self, item: Any, reason: str) -> Any:
        raise AssertionError(reason)
