"""What is done with the places of a shard, in any process."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rs_embed.embedding.loop import embed, embed_read, read_places
from rs_embed.errors import EngineError
from rs_embed.progress import Bar

if TYPE_CHECKING:
    from rs_embed.embedding.loop import Looked
    from rs_embed.embedding.result import Embedding
    from rs_embed.embedding.source import Source
    from rs_embed.embedding.task import Task
    from rs_embed.errors import RsEmbedError
    from rs_embed.runs.shards import Shard


@dataclass(frozen=True, eq=False)
class PlaceWork:
    """The embeddings of places; see `rs_embed.runs.shards.Work`.

    An item is what its place has of its own: the values of some fields of `Source`.
    """

    task: Task
    source: Source
    fetch_workers: int
    batch_size: int | None

    def stream(
        self, shards: Iterable[Shard]
    ) -> Generator[tuple[Shard, list[Embedding | RsEmbedError]], None, None]:
        """Yield each shard with its embeddings, or the errors that prevent them."""
        under_way: deque[Shard] = deque()
        shard_of: list[int] = []

        def sources() -> Iterator[Source]:
            for number, shard in enumerate(shards):
                under_way.append(shard)
                shard_of.extend([number] * len(shard))
                yield from map(self.source_of, shard.items)

        made = embed(
            self.task,
            sources(),
            fetch_workers=self.fetch_workers,
            batch_size=self.batch_size,
            keep_images=False,
            tiles=Bar(show=False, unit="tile"),
            shard_of=shard_of.__getitem__,
        )
        results = []
        with closing(made):
            for result in made:
                results.append(result)
                if len(results) == len(under_way[0]):
                    yield under_way.popleft(), results
                    results = []

    def read(self, shard: Shard) -> list[Looked]:
        """Return what the model will see of each place."""
        sources = list(map(self.source_of, shard.items))
        return read_places(self.task, sources, fetch_workers=self.fetch_workers)

    def finish(self, shard: Shard, read: list[Looked]) -> list[Embedding | RsEmbedError]:  # noqa: ARG002
        """Return the embeddings of places that were read."""
        return list(embed_read(self.task, read, batch_size=self.batch_size))

    def lost(self, item: Mapping[str, Any], reason: str) -> RsEmbedError:
        """Return the error of a place whose process ended."""
        return EngineError(
            f"{self.source_of(item).label()}: {reason} whenever it worked on this place; its "
            "imagery may be damaged, or need more memory than there is"
        )

    def source_of(self, item: Mapping[str, Any]) -> Source:
        """Return the pixels of an item."""
        return replace(self.source, **item)
