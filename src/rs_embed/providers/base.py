"""What a provider must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec, TemporalSpec


@dataclass(frozen=True)
class Cost:
    """What fetching one place costs at a service.

    Attributes
    ----------
    requests : int
        Requests for its pixels and their provenance.
    download_bytes : int
        Bytes of pixels that are downloaded, before compression.
    more : str
        Costs that are not known before, and where a quota is shown; may be empty.
    """

    requests: int = 0
    download_bytes: int = 0
    more: str = ""


class Provider(Protocol):
    """A source of imagery; it goes through pickle, also after use.

    What it opened, looked up and locked stays behind: the copy makes its own when first used.
    """

    @property
    def name(self) -> str:
        """Name in ``meta["backend"]``, and for ``backend=`` if it is registered."""

    @property
    def dated(self) -> bool:
        """Whether its imagery has dates, so that a period applies to it."""

    def configured(self) -> bool:
        """Return whether it is set up, so that ``backend="auto"`` may use it."""

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise `ProviderError` for what is not available here; None means not stated."""

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the bands of ``sensor`` on exactly ``grid``; may run in any thread.

        ``temporal`` is None if and only if the provider is not ``dated``; every other value of
        ``sensor`` than ``crs`` and the units is stated.

        ``Raster.source`` is the provenance of the pixels as JSON values, and becomes
        ``meta["source"]``. It has at least ``image_count``, the number of scenes used. A provider
        with dates also states ``items``: a list of mappings, one for each scene that was used,
        oldest first, each with ``id`` and ``acquired`` (ISO 8601 in UTC, or None). If it lists
        only some of many, ``items_not_listed`` is the number of the others.

        Raises
        ------
        NoImageryError
            If there is no imagery for the place and period.
        ProviderError
            If the source fails; transient where the same request may succeed later.
        """

    def identity(self) -> str:
        """Return text that changes when its imagery may have changed.

        A batch that is resumed goes on only if it is the same as when the batch was begun, in
        another process too.

        Raises
        ------
        RsEmbedError
            If what is configured cannot be used.
        """

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        """Return what fetching ``sensor`` on ``grid`` costs at a service; makes no request."""

    def status(self, *, online: bool = False) -> str:
        """Return one line: ``ready: ...``, or ``missing: ...; `` and the fix.

        What is not configured is missing; what is configured and fails raises. Requests are made
        only if ``online``.

        Raises
        ------
        RsEmbedError
            If what is configured cannot be used.
        """


class RegisteredProvider(Provider, Protocol):
    """A provider whose class an entry point of the group ``rs_embed.providers`` names."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the provider that ``settings`` configure; the same settings build it once.

        Nothing is looked up, connected to or refused yet: ``status`` says what is missing or
        invalid, and every other call raises it.
        """
