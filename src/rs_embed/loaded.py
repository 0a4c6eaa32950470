"""A model that is loaded once, with its functions as methods."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

from rs_embed.embedding.inspection import inspect_input
from rs_embed.embedding.kept import KeptModel, KeptPlan, planned
from rs_embed.embedding.many_places import get_embeddings_batch
from rs_embed.embedding.one_place import get_embedding
from rs_embed.errors import SpecError
from rs_embed.maps.area import embed_area
from rs_embed.printable import html_table
from rs_embed.settings import Settings
from rs_embed.tables.batch import export_batch
from rs_embed.tables.export import embed_table


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel(KeptModel):
    """A model in memory, made by `load_model`; its weights stay while it exists.

    Its methods are the functions, without ``model``, ``device`` and the model's own options:
    ``embed`` (`get_embedding`), ``embed_many`` (`get_embeddings_batch`), ``embed_table``,
    ``export_batch``, ``embed_area`` and ``inspect`` (`inspect_input`). All others
    that take the id of a model (`plan_area`, `estimate`, `iter_embeddings`) also take this object
    in its place.
    """

    embed = get_embedding
    embed_many = get_embeddings_batch
    embed_table = embed_table
    export_batch = export_batch
    embed_area = embed_area
    inspect = inspect_input

    def describe(self) -> dict[str, Any]:
        """Return what `describe_model` returns, and under ``loaded`` what is settled."""
        plan = self._plan
        loaded = {
            **plan.settled,
            **plan.input_meta,
            "image_size": plan.image_size,
            "used_patch_size": plan.patch_size,
            **plan.load().provenance,
        }
        return {**self._description.to_json(), "loaded": loaded}

    def _repr_html_(self) -> str:
        return html_table(repr(self), self.describe()["loaded"])


def load_model(
    model: str, *, device: Literal["auto", "cpu", "cuda", "mps"] | Any = "auto", **options: Any
) -> LoadedModel:
    """Return a model in memory, for many calls: weights are loaded once, options stated once.

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``: ``"scalemae"``.
    device : {"auto", "cpu", "cuda", "mps"}, str or torch.device
        Where the model runs; one that is not available is an error.
    **options
        The model's own options, see ``describe_model(model)["options"]``. Those that come from
        the environment are read now.

    Raises
    ------
    SpecError
        If an option is invalid; `UnknownNameError` for names.
    ModelError
        If the device is not available; `CheckpointError` for weights.

    Examples
    --------
    >>> from rs_embed import load_model
    >>> model = load_model("scalemae", variant="tiny", device="cpu")
    >>> model.embed(spatial=(-75.6156, 37.6942), buffer_m=1280, backend="sample").shape
    (192,)
    """
    if isinstance(model, KeptModel):
        raise SpecError(f"got {model!r}, which is loaded already; expected the id of a model")
    settings = Settings.from_environ()
    of_calls = inspect.signature(get_embedding).parameters.keys() & options.keys()
    if of_calls:
        name = min(of_calls)
        raise SpecError(
            f"got {name}={options[name]!r} for load_model, expected options of the model; state it "
            f"in each call: model.embed({name}=...)"
        )
    arguments = inspect.signature(load_model).parameters
    description, plan, stated = planned(
        model, options, device=device, settings=settings, arguments=arguments
    )
    return LoadedModel(model, {**stated, "device": device}, description, KeptPlan(plan))
