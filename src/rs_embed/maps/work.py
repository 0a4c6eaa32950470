"""What is done with the windows of a shard, in any process."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rs_embed.errors import EngineError
from rs_embed.maps.window_tokens import WindowTokens, window_tokens

if TYPE_CHECKING:
    from rs_embed.geo.tiling import Tile
    from rs_embed.maps.request import AreaTask
    from rs_embed.runs.shards import Shard


@dataclass(frozen=True, eq=False)
class WindowWork:
    """The tokens of windows; see `rs_embed.runs.shards.Work`. An item is a tile of the layout."""

    area: AreaTask
    units_seen: bool

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        stated = self.area.settings.scalemae_batch_size
        return stated or self.area.task.batch_size(self.area.layout.tile_size)

    def stream(
        self, shards: Iterable[Shard]
    ) -> Generator[tuple[Shard, list[WindowTokens]], None, None]:
        """Yield each shard with what came of its windows."""
        under_way: deque[Shard] = deque()

        def tiles() -> Iterator[Sequence[Tile]]:
            for shard in shards:
                under_way.append(shard)
                yield shard.items

        made = window_tokens(
            self.area.task,
            self.area.layout,
            tiles(),
            self.area.read,
            self.area.task.plan.load,
            workers=self.area.settings.scalemae_fetch_workers,
            batch_size=self.batch_size,
            units_seen=self.units_seen,
        )
        with closing(made):
            for group in made:
                yield under_way.popleft(), group

    def lost(self, item: Tile, reason: str) -> WindowTokens:
        """Return the failure of a window whose process ended."""
        row, column, *_ = item.window
        return WindowTokens(
            item,
            None,
            error=EngineError(
                f"{reason} whenever it worked on the window that begins at row {row}, column "
                f"{column} (px); its imagery may be damaged, or need more memory than there is"
            ),
        )
