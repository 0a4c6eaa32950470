"""Models and providers by name: found through entry points, imported on first use."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any

from rs_embed.errors import (
    MissingDependencyError,
    ModelError,
    ProviderError,
    RsEmbedError,
    UnknownNameError,
)
from rs_embed.models.base import Model, ModelDescription, Plan, Preparation
from rs_embed.models.devices import one_device
from rs_embed.models.weights import where_weights_are

if TYPE_CHECKING:
    from rs_embed.providers.base import Provider, RegisteredProvider
    from rs_embed.settings import Settings

MODELS = "rs_embed.models"
PROVIDERS = "rs_embed.providers"
# Own imagery, then an account, then what needs none. The sample scene is only used by name.
AUTO_ORDER = ("local", "gee", "stac")


def find_model(name: str) -> Model:
    """Return the model of that id or alias.

    Raises
    ------
    UnknownNameError
        If no installed package offers it; the message suggests similar names.
    ModelError
        If its entry point is not a model.
    MissingDependencyError
        If its package cannot be imported.
    """
    return _model(name, _points(MODELS))


def _model(name: str, points: EntryPoints) -> Model:
    model = _load(points, "model", name)
    if not isinstance(model, Model):
        raise ModelError(
            f"the entry point {name!r} of {MODELS} is a {type(model).__name__}, expected an "
            "object with description and plan (see rs_embed.models.base.Model)"
        )
    description = model.description
    if not isinstance(description, ModelDescription):
        raise ModelError(
            f"the description of model {name!r} is a {type(description).__name__}, expected a "
            "ModelDescription (rs_embed.models.base)"
        )
    return model


def checked_plan(
    model: Model, options: Mapping[str, Any], *, device: Any, settings: Settings
) -> Plan:
    """Return the model's plan, once it is clear that it keeps the contract of `Plan`.

    Raises
    ------
    ModelError
        If a part of it is missing, or as `Model.plan`.
    SpecError
        As `Model.plan`.
    """
    plan = model.plan(options, device=one_device(device), settings=settings)
    _check_parts(plan, Plan, f"the plan of model {model.description.id!r}")
    _check_parts(plan.preparation, Preparation, f"the preparation of {model.description.id!r}")
    return plan


def _check_parts(value: object, protocol: type, what: str) -> None:
    """Raise `ModelError` if a value lacks a part that a protocol names."""
    names = (name for name in vars(protocol) if not name.startswith("_"))
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise ModelError(
            f"{what}, a {type(value).__name__}, has no {', '.join(missing)}; it must have all of "
            f"{protocol.__module__}.{protocol.__name__}: update the package that brings it"
        )


def find_provider(name: str, settings: Settings) -> Provider:
    """Return the provider of that name, as ``settings`` configure it.

    The same settings give the same object, so that it connects once.

    Raises
    ------
    UnknownNameError
        If no installed package offers it; near matches are named.
    ProviderError
        If what its entry point names is not a provider.
    """
    provider = _load(_points(PROVIDERS), "backend", name)
    if not callable(getattr(provider, "from_settings", None)):
        raise ProviderError(
            f"the entry point {name!r} of {PROVIDERS} names {provider!r}, expected a class with "
            "the classmethod from_settings (rs_embed.providers.base.RegisteredProvider)"
        )
    return _instance(provider, settings)


def first_configured(settings: Settings) -> str | None:
    """Return the name of the provider that ``backend="auto"`` uses; None if none is configured."""
    return next((n for n in AUTO_ORDER if find_provider(n, settings).configured()), None)


@lru_cache
def _instance(kind: type[RegisteredProvider], settings: Settings) -> Provider:
    return kind.from_settings(settings)


def provider_names() -> list[str]:
    """Return the names of all providers, sorted."""
    return sorted({point.name for point in _points(PROVIDERS)})


def list_models() -> list[str]:
    """Return the ids of the models of all installed packages, sorted, without aliases."""
    points, ids = _points(MODELS), set()
    for name in points.names:
        try:
            id_ = _model(name, points).description.id
            ids.add(id_ if id_ in points.names else name)  # what find_model takes
        except RsEmbedError:
            ids.add(name)  # broken: using it raises the reason
    return sorted(ids)


def describe_model(model: str) -> dict[str, Any]:
    """Return what is known about a model without loading it, as JSON values.

    Parameters
    ----------
    model : str
        Id or alias.

    Returns
    -------
    dict
        ``id``, ``aliases``, ``summary``, ``family``, ``publication``, ``patch_size``, ``inputs``
        (collection, bands, default fetch and period, units, normalisation), ``outputs`` (with
        their poolings), ``input_preps``, ``devices``, ``options`` (effect, default, type,
        choices, bounds), ``environment`` and ``weights`` (with licence).

    Raises
    ------
    UnknownNameError
        If no installed package offers it; the message suggests similar names.
    """
    return find_model(model).description.to_json()


def list_weights() -> list[dict[str, Any]]:
    """Return the weights that the installed models name, as JSON values.

    Returns
    -------
    list of dict
        ``model``, ``id`` (value of ``weights=``), ``licence``, ``size`` (in words), ``where`` (the
        file on this disk, else the address; None for weights without a file) and ``on_disk``.
        Nothing is downloaded.
    """
    listed = []
    for name in list_models():
        try:
            described = find_model(name).description.weights
        except RsEmbedError:  # broken: using it raises the reason
            continue
        for weights in described:
            where, on_disk = where_weights_are(weights.id)
            of_one = {"model": name, "id": weights.id, "licence": weights.licence}
            listed.append({**of_one, "size": weights.size, "where": where, "on_disk": on_disk})
    return listed


def _points(group: str) -> EntryPoints:
    """Return the entry points of a group, read again once a folder of packages has changed."""
    return _read_points(group, tuple((path, _modified(path)) for path in sys.path))


@lru_cache
def _read_points(group: str, _packages: tuple[tuple[str, int | None], ...]) -> EntryPoints:
    return entry_points(group=group)  # reads the metadata of every installed package


def _modified(path: str) -> int | None:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return None


def _load(points: EntryPoints, kind: str, name: object) -> Any:
    known: dict[str, EntryPoint] = {}
    for point in points:
        if known.setdefault(point.name, point).value != point.value and point.name == name:
            raise UnknownNameError(
                f"several packages register the {kind} {point.name!r}: {point.value!r} and "
                f"{known[point.name].value!r}; uninstall one of them"
            )
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError.among(kind, name, known)
    try:
        return known[name].load()
    except (Exception, SystemExit) as exc:  # whatever another package raises when imported
        raise MissingDependencyError(
            f"the {kind} {name!r} is registered as {known[name].value!r}, which cannot be "
            f"imported ({type(exc).__name__}: {exc}); reinstall or remove the package that "
            "provides it"
        ) from exc
