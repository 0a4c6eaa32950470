"""What a batch will ask of a service and of the model, before anything is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, settle
from rs_embed.errors import RsEmbedError, SpecError
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec, InputPrepSpec, SensorSpec, Spatial, TemporalSpec

if TYPE_CHECKING:
    from rs_embed.providers.base import Provider


@dataclass(frozen=True)
class Estimate:
    """What many places ask for, summed up.

    Attributes
    ----------
    backend : str
        Name of the provider.
    places : int
        How many there are.
    images : int
        Images that go through the model: one a place, or its tiles.
    pixels : int
        Pixels of all places, each counted once for all bands.
    requests : int
        Requests to the provider's service.
    download_bytes : int
        Bytes of pixels that come back, before compression.
    more : str
        What is not known before, and where a quota is shown; may be empty.
    refused : dict
        Number of a place, from 0 -> why it would fail before it is fetched.
    """

    backend: str
    places: int
    images: int
    pixels: int
    requests: int
    download_bytes: int
    more: str
    refused: dict[int, str]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)


def estimate(
    model: str,
    *,
    spatials: Iterable[Spatial],
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    backend: str | Provider = "auto",
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    **options: Any,
) -> Estimate:
    """Return what ``iter_embeddings`` with these arguments would ask for; fetches nothing.

    Of a STAC catalogue it is asked whether it has the collection and the bands, of others nothing.

    Pixels that a cache keeps are not counted off.

    Sizes are those of weights on disk; without any, the model's default ones.

    Raises
    ------
    SpecError, SettingsError, ModelError, ProviderError
        If the request as a whole cannot be meant; what is wrong with single places is in
        ``refused``.
    """
    settings = Settings.from_environ()
    task = settle(
        model,
        output=None,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
        settings=settings,
    )
    contract = task.description.inputs
    stated = Source(temporal=temporal, sensor=sensor, fetch=fetch, backend=backend)
    common = stated.with_provider(settings)
    common.check_source(contract)
    places = images = pixels = requests = download_bytes = 0
    more, refused = "", {}
    for index, spatial in enumerate(spatials):
        places += 1
        source = replace(common, spatial=spatial)
        source.check()
        try:
            expected = source.expected(contract, task.window)
        except RsEmbedError as exc:
            refused[index] = str(exc)
            continue
        if expected is None:
            continue
        grid, cost = expected
        images += task.image_count(grid.shape)
        pixels += grid.shape[0] * grid.shape[1]
        requests += cost.requests
        download_bytes += cost.download_bytes
        more = cost.more
    if not places:
        raise SpecError("got no place, expected at least one")
    return Estimate(
        str(common.backend), places, images, pixels, requests, download_bytes, more, refused
    )
