"""Models and providers by name: found through entry points, imported on first use."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import TYPE_CHECKING, Any

from rs_embed.errors import MissingDependencyError, ModelError, RsEmbedError, UnknownNameError
from rs_embed.models.base import Model

if TYPE_CHECKING:
    from rs_embed.providers.base import Provider

MODELS = "rs_embed.models"
PROVIDERS = "rs_embed.providers"
# Own imagery, then an account, then what needs none. The sample scene is never picked unasked.
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
    return _model(name, entry_points(group=MODELS))


def _model(name: str, points: EntryPoints) -> Model:
    model = _load(points, "model", name)
    if not isinstance(model, Model):
        raise ModelError(
            f"the entry point {name!r} of {MODELS} is a {type(model).__name__}, expected an "
            "object with description and plan (see rs_embed.models.base.Model)"
        )
    return model


def find_provider(name: str) -> Provider:
    """Return the provider of that name; the same object each time, so that it connects once.

    Raises
    ------
    UnknownNameError
        If no installed package offers it; near matches are named.
    """
    return _instance(_load(entry_points(group=PROVIDERS), "backend", name))


def first_configured() -> str | None:
    """Return the name of the provider that ``backend="auto"`` takes; None if none is configured."""
    return next((name for name in AUTO_ORDER if find_provider(name).configured()), None)


@lru_cache
def _instance(kind: type[Provider]) -> Provider:
    return kind()


def provider_names() -> list[str]:
    """Return the names of all providers, sorted."""
    return sorted({point.name for point in entry_points(group=PROVIDERS)})


def list_models() -> list[str]:
    """Return the ids of the models of all installed packages, sorted, without aliases."""
    points, ids = entry_points(group=MODELS), set()
    for name in points.names:
        try:
            ids.add(_model(name, points).description.id)
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
    except Exception as exc:  # whatever another package raises when imported
        raise MissingDependencyError(
            f"the {kind} {name!r} is registered as {known[name].value!r}, which cannot be "
            f"imported ({type(exc).__name__}: {exc}); reinstall or remove the package that "
            "provides it"
        ) from exc
