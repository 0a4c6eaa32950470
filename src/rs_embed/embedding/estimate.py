"""The cost of a batch for the service and the model, before anything is fetched."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.arguments import fetch_of
from rs_embed.embedding.kept import KeptModel
from rs_embed.embedding.place_arguments import arguments_of, as_places
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, settle
from rs_embed.errors import RsEmbedError, SpecError, give_warnings
from rs_embed.files.vectors import MANY_VECTORS
from rs_embed.printable import excerpt, html_table
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec, InputPrepSpec, SensorSpec, TemporalSpec

if TYPE_CHECKING:
    from rs_embed.providers.base import Provider


@dataclass(frozen=True, repr=False)
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
        Number of a place, from 0, or its id (`plan_batch`) -> why it would fail before it is
        fetched.
    """

    backend: str
    places: int
    images: int
    pixels: int
    requests: int
    download_bytes: int
    more: str
    refused: dict[int | str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)

    def __repr__(self) -> str:
        return "\n  ".join(
            ["Estimate", *(f"{k}: {excerpt(str(v))}" for k, v in vars(self).items())]
        )

    def _repr_html_(self) -> str:
        return html_table("Estimate", {k: excerpt(str(v)) for k, v in vars(self).items()})


def estimate(
    model: str | KeptModel,
    *,
    spatials: Any,
    buffer_m: float | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    output: str | os.PathLike[str] | None = None,
    temporal: TemporalSpec | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | None = None,
    scale_m: float | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    imagery: object = None,
    cache: object = None,  # noqa: ARG001  # accepted, so that the arguments are the same
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    **options: Any,
) -> Estimate:
    """Return what `iter_embeddings` or `export_batch` would request; no pixels are fetched.

    A STAC catalogue is asked whether it has the collection and the bands. Pixels in a cache are
    counted as well. Sizes come from the weights on disk, or are the model's defaults.

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``, or a model of `load_model`.
    spatials : object
        The places, as for `iter_embeddings`.
    buffer_m, layer, polygons
        As for `export_batch`.
    output : path, optional
        The file that `export_batch` would write; checked if given.
    **options
        This and all else as for `iter_embeddings`; ``imagery`` is refused, ``cache`` is ignored.

    Raises
    ------
    SpecError, SettingsError, ModelError, ProviderError
        If the request as a whole is invalid; what is wrong with single places is in ``refused``.
    ExportError
        If the output cannot be written.
    """
    if output is not None:
        MANY_VECTORS.check_address(output)
    refuse_imagery(imagery)
    settings = Settings.from_environ()
    task = settle(
        model,
        output=None,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
        settings=settings,
        arguments=inspect.signature(estimate).parameters,
    )
    contract = task.description.inputs
    stated = Source(
        temporal=temporal, sensor=sensor, fetch=fetch_of(fetch, scale_m), backend=backend
    )
    common = stated.with_provider(settings)
    common.check_source(contract)
    places = images = pixels = requests = download_bytes = 0
    more = ""
    refused: dict[int | str, str] = {}
    for index, own in enumerate(_each(spatials, common, buffer_m, layer, polygons)):
        places += 1
        source = replace(common, **own)
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


def refuse_imagery(imagery: object) -> None:
    """Raise `SpecError` if pixels come from own files."""
    if imagery is not None:
        raise SpecError(
            "got imagery (--imagery) for an estimate (--dry-run), expected a backend: own files "
            "need no requests"
        )


def _each(
    spatials: Any, common: Source, buffer_m: Any, layer: Any, polygons: Any
) -> Iterator[dict[str, Any]]:
    """Yield what each place replaces of the common source."""
    places = as_places(spatials, buffer_m=buffer_m, layer=layer, polygons=polygons)
    if places is None:
        yield from ({"spatial": spatial} for spatial in spatials)
        return
    if places.imageries is not None:
        raise SpecError("got images for an estimate (--dry-run): own files need no requests")
    _, shared, _ = arguments_of(places, common.temporal, common.fetch, own_pixels=False)
    give_warnings(places.notes)
    each = {name: value for name, value in shared.items() if isinstance(value, list)}
    for index, spatial in enumerate(places.spatials):
        yield {"spatial": spatial, **{name: value[index] for name, value in each.items()}}
