"""Models and providers by name: found through entry points, imported when asked for."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from rs_embed.errors import MissingDependencyError, ModelError, UnknownNameError
from rs_embed.models.base import Model
from rs_embed.providers.base import Provider

MODELS = "rs_embed.models"
PROVIDERS = "rs_embed.providers"


def find_model(name: str) -> Model:
    """Return the model of that id or alias.

    Raises
    ------
    UnknownNameError
        If no installed package offers it; near matches are named.
    ModelError
        If what its entry point names is not a model.
    """
    model = _load(MODELS, "model", name)
    if not isinstance(model, Model):
        raise ModelError(
            f"the entry point {name!r} of {MODELS} names a {type(model).__name__}, expected an "
            "object with description and plan (rs_embed.models.base.Model)"
        )
    return model


def find_provider(name: str) -> Provider:
    """Return a new provider of that name.

    Raises
    ------
    UnknownNameError
        If no installed package offers it; near matches are named.
    """
    return cast(Provider, _load(PROVIDERS, "backend", name)())


def provider_names() -> list[str]:
    """Return the names of all providers, sorted."""
    return sorted({point.name for point in entry_points(group=PROVIDERS)})


def list_models() -> list[str]:
    """Return the ids of all models that installed packages offer, sorted, aliases left out."""
    by_object: dict[str, str] = {}
    for point in sorted(entry_points(group=MODELS), key=lambda p: (len(p.name), p.name)):
        by_object.setdefault(point.value, point.name)
    return sorted(by_object.values())


def describe_model(model: str) -> dict[str, Any]:
    """Return everything that can be known of a model without loading it, as JSON values.

    Parameters
    ----------
    model : str
        Id or alias.

    Returns
    -------
    dict
        ``id``, ``aliases``, ``summary``, ``family``, ``publication``, ``patch_size``, ``inputs``
        (collection, bands, default fetch and period, units, normalisation), ``outputs``,
        ``options`` (effect, default, choices), ``environment`` and ``weights`` (with licence).

    Raises
    ------
    UnknownNameError
        If there is no such model.
    """
    return find_model(model).description.to_json()


def _load(group: str, kind: str, name: object) -> Any:
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=group)}
    if not isinstance(name, str) or name not in points:
        raise UnknownNameError.among(kind, name, points)
    try:
        return points[name].load()
    except (ImportError, AttributeError) as exc:
        raise MissingDependencyError(
            f"the {kind} {name!r} is registered as {points[name].value!r}, which cannot be "
            f"imported ({exc}); reinstall the package that brings it"
        ) from exc
