"""A model that is loaded once and kept, in place of its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rs_embed.errors import SpecError
from rs_embed.models.base import Plan
from rs_embed.printable import excerpt
from rs_embed.registry import checked_plan, find_model

if TYPE_CHECKING:
    from rs_embed.models.base import Encoder, ModelDescription, Preparation
    from rs_embed.settings import Settings


class KeptPlan:
    """A plan whose model is loaded; what it decides no longer changes with files on disk.

    See `rs_embed.models.base.Plan`. In another process it is the plan that it was made of.
    """

    preparation: Preparation
    gsd: float | str
    image_size: int
    patch_size: int
    sizes_known: bool
    batch_size: int
    settled: Mapping[str, Any]
    input_meta: Mapping[str, Any]
    notes: tuple[str, ...]

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._encoder = plan.load()  # first: a download can decide the rest
        decided = (name for name in vars(Plan) if not name.startswith("_") and name != "load")
        vars(self).update({name: getattr(plan, name) for name in decided})
        self.notes = getattr(plan, "notes", ())
        self.slots = getattr(plan, "slots", 1)
        self.map_tile_size = getattr(plan, "map_tile_size", None)
        self.image_size = self._encoder.image_size
        self.patch_size = self._encoder.patch_size
        self.sizes_known = True

    def load(self) -> Encoder:
        """Return the model that is loaded."""
        return self._encoder

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._plan,)


def _itself(plan: Plan) -> Plan:
    return plan


@dataclass(frozen=True, eq=False, repr=False)
class KeptModel:
    """A model with its options that stays in memory; functions take it in place of a name.

    Attributes
    ----------
    name : str
        The id or alias by which it was loaded.
    stated : dict
        Its options, and ``device``, as they were stated.
    """

    name: str
    stated: Mapping[str, Any]
    _description: ModelDescription
    _plan: KeptPlan

    def __repr__(self) -> str:
        return excerpt(_call(self.name, self.stated), 300)

    def check_call(self, device: Any, options: Mapping[str, Any], arguments: Iterable[str]) -> None:
        """Raise an error if a call states what the model has settled, or an unknown argument."""
        own = {option.name for option in self._description.options}
        given = {**options, **({} if device == "auto" else {"device": device})}
        again = {name: value for name, value in given.items() if name in {*own, "device"}}
        if again:
            stated = ", ".join(f"{name}={value!r}" for name, value in again.items())
            other = _call(self.name, {**self.stated, **again})
            raise SpecError(
                f"got {stated} for {self!r}, whose options are stated once, when it is loaded; "
                f"leave it out, or load another model: {other}"
            )
        replace(self._description, options=()).check_options(given, {*arguments} - {"device"})


def _call(name: str, stated: Mapping[str, Any]) -> str:
    return f"load_model({', '.join([repr(name), *(f'{k}={v!r}' for k, v in stated.items())])})"


def check_names(
    model: str | KeptModel, options: Mapping[str, Any], arguments: Iterable[str]
) -> None:
    """Raise `UnknownNameError` for an unknown model, option or argument; nothing is planned."""
    if isinstance(model, KeptModel):
        model.check_call("auto", options, arguments)
    else:
        find_model(model).description.check_options(options, arguments)


def planned(
    model: str | KeptModel,
    options: Mapping[str, Any],
    *,
    device: Any,
    settings: Settings,
    arguments: Iterable[str] = (),
) -> tuple[ModelDescription, Plan, Mapping[str, Any]]:
    """Return a model's description, its checked plan, and the options that were stated.

    Parameters
    ----------
    model : str or KeptModel
        Id or alias, or a model that is loaded.
    options, device
        As stated in the call.
    settings : Settings
        What the environment states.
    arguments : iterable of str
        Arguments of the function that was called, for names that are unknown.

    Raises
    ------
    SpecError, ModelError
        See ``get_embedding``.
    """
    if isinstance(model, KeptModel):
        model.check_call(device, options, arguments)
        own = {name: value for name, value in model.stated.items() if name != "device"}
        return model._description, model._plan, own
    found = find_model(model)
    found.description.check_options(options, arguments)
    plan = checked_plan(found, options, device=device, settings=settings)
    return found.description, plan, options
