"""Any place, any time, any imagery: a ScaleMAE embedding that you can trust.

Try it without a network, on the sample scene and with the small weights of the package:

>>> from rs_embed import get_embedding
>>> place = dict(spatial=(-75.6156, 37.6942), buffer_m=1280)
>>> embedding = get_embedding("scalemae", **place, backend="sample", variant="tiny")
>>> embedding.shape, embedding.meta["input_res_m"]
((192,), 10.0)

Then choose by what you have:

- a file: ``get_embedding("scalemae", imagery="scene.tif")``
- a place and a period:
  ``get_embedding("scalemae", spatial=..., temporal="2022-06", backend="stac")``
- a table of places: `embed_table` or `export_batch`
- a whole area: `embed_area`

`load_model` keeps a model for many calls, with these functions as its methods.
`inspect_input` shows what the model would see, and `describe_model` its options. On the command
line: ``rs-embed --help``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rs_embed._version import __version__ as __version__

if TYPE_CHECKING:
    from rs_embed import plotting as plotting
    from rs_embed.classification.classifier import Classifier as Classifier
    from rs_embed.classification.classifier import fit_classifier as fit_classifier
    from rs_embed.classification.clusters import cluster_map as cluster_map
    from rs_embed.diagnosis import Finding as Finding
    from rs_embed.diagnosis import diagnose as diagnose
    from rs_embed.embedding.estimate import Estimate as Estimate
    from rs_embed.embedding.estimate import estimate as estimate
    from rs_embed.embedding.inspection import Inspection as Inspection
    from rs_embed.embedding.inspection import inspect_input as inspect_input
    from rs_embed.embedding.many_places import get_embeddings_batch as get_embeddings_batch
    from rs_embed.embedding.many_places import iter_embeddings as iter_embeddings
    from rs_embed.embedding.one_place import get_embedding as get_embedding
    from rs_embed.embedding.result import Embedding as Embedding
    from rs_embed.embedding.stacking import stack as stack
    from rs_embed.errors import CheckpointError as CheckpointError
    from rs_embed.errors import CoverageWarning as CoverageWarning
    from rs_embed.errors import DatasetError as DatasetError
    from rs_embed.errors import EngineError as EngineError
    from rs_embed.errors import ExportError as ExportError
    from rs_embed.errors import GridError as GridError
    from rs_embed.errors import GsdWarning as GsdWarning
    from rs_embed.errors import ImageryError as ImageryError
    from rs_embed.errors import ImageryWarning as ImageryWarning
    from rs_embed.errors import MissingDependencyError as MissingDependencyError
    from rs_embed.errors import ModelError as ModelError
    from rs_embed.errors import NoImageryError as NoImageryError
    from rs_embed.errors import ProviderError as ProviderError
    from rs_embed.errors import RsEmbedError as RsEmbedError
    from rs_embed.errors import RsEmbedWarning as RsEmbedWarning
    from rs_embed.errors import SettingsError as SettingsError
    from rs_embed.errors import SpecError as SpecError
    from rs_embed.errors import TemporalWarning as TemporalWarning
    from rs_embed.errors import TrainingError as TrainingError
    from rs_embed.errors import UnknownNameError as UnknownNameError
    from rs_embed.evaluation import EvaluationReport as EvaluationReport
    from rs_embed.evaluation import evaluate as evaluate
    from rs_embed.evaluation import score_embeddings as score_embeddings
    from rs_embed.explorer.exploring import Explorer as Explorer
    from rs_embed.explorer.exploring import explore as explore
    from rs_embed.files.place_tables import Places as Places
    from rs_embed.files.place_tables import places_of as places_of
    from rs_embed.files.places import NamedPlace as NamedPlace
    from rs_embed.files.places import read_places as read_places
    from rs_embed.files.vectors import Vectors as Vectors
    from rs_embed.files.vectors import read_vectors as read_vectors
    from rs_embed.geo.grid import Grid as Grid
    from rs_embed.geo.grid import gsd_m as gsd_m
    from rs_embed.geo.grid import roi_grid as roi_grid
    from rs_embed.geo.raster import Raster as Raster
    from rs_embed.loaded import LoadedModel as LoadedModel
    from rs_embed.loaded import load_model as load_model
    from rs_embed.maps.area import embed_area as embed_area
    from rs_embed.maps.area import plan_area as plan_area
    from rs_embed.maps.change import Change as Change
    from rs_embed.maps.change import change as change
    from rs_embed.maps.formats.opening import open_map as open_map
    from rs_embed.maps.formats.opening import restored as restored
    from rs_embed.maps.outputs import check_output as check_output
    from rs_embed.maps.report import MapPlan as MapPlan
    from rs_embed.maps.report import MapReport as MapReport
    from rs_embed.maps.sampling import sample_points as sample_points
    from rs_embed.maps.sampling import zonal_mean as zonal_mean
    from rs_embed.maps.similarity import similarity_map as similarity_map
    from rs_embed.network.retrying import Patience as Patience
    from rs_embed.providers.cache import PatchCache as PatchCache
    from rs_embed.providers.cache import open_cache as open_cache
    from rs_embed.providers.earth_engine.provider import EarthEngineProvider as EarthEngineProvider
    from rs_embed.providers.local import LocalProvider as LocalProvider
    from rs_embed.providers.sample import SAMPLE_PLACE as SAMPLE_PLACE
    from rs_embed.providers.stac.provider import StacProvider as StacProvider
    from rs_embed.registry import describe_model as describe_model
    from rs_embed.registry import list_models as list_models
    from rs_embed.registry import list_weights as list_weights
    from rs_embed.specs import BBox as BBox
    from rs_embed.specs import FetchSpec as FetchSpec
    from rs_embed.specs import InputPrepSpec as InputPrepSpec
    from rs_embed.specs import OutputSpec as OutputSpec
    from rs_embed.specs import PointBuffer as PointBuffer
    from rs_embed.specs import SensorSpec as SensorSpec
    from rs_embed.specs import TemporalSpec as TemporalSpec
    from rs_embed.tables.batch import BatchReport as BatchReport
    from rs_embed.tables.batch import export_batch as export_batch
    from rs_embed.tables.batch import plan_batch as plan_batch
    from rs_embed.tables.export import EmbeddingTable as EmbeddingTable
    from rs_embed.tables.export import embed_table as embed_table
    from rs_embed.tables.export import load_export as load_export
    from rs_embed.tables.nearest import nearest as nearest
    from rs_embed.training.pretraining import pretrain as pretrain
    from rs_embed.training.recipe import read_recipe as read_recipe

# Module -> its public names, loaded on first use so that importing rs_embed costs nothing.
_MODULES = {
    "classification.classifier": "Classifier fit_classifier",
    "classification.clusters": "cluster_map",
    "diagnosis": "Finding diagnose",
    "embedding.estimate": "Estimate estimate",
    "embedding.inspection": "Inspection inspect_input",
    "embedding.many_places": "get_embeddings_batch iter_embeddings",
    "embedding.one_place": "get_embedding",
    "embedding.result": "Embedding",
    "embedding.stacking": "stack",
    "errors": (
        "CheckpointError CoverageWarning DatasetError EngineError ExportError GridError GsdWarning "
        "ImageryError ImageryWarning MissingDependencyError ModelError NoImageryError "
        "ProviderError RsEmbedError RsEmbedWarning SettingsError SpecError TemporalWarning "
        "TrainingError UnknownNameError"
    ),
    "evaluation": "EvaluationReport evaluate score_embeddings",
    "explorer.exploring": "Explorer explore",
    "files.place_tables": "Places places_of",
    "files.places": "NamedPlace read_places",
    "files.vectors": "Vectors read_vectors",
    "geo.grid": "Grid gsd_m roi_grid",
    "geo.raster": "Raster",
    "loaded": "LoadedModel load_model",
    "maps.area": "embed_area plan_area",
    "maps.change": "Change change",
    "maps.formats.opening": "open_map restored",
    "maps.outputs": "check_output",
    "maps.report": "MapPlan MapReport",
    "maps.sampling": "sample_points zonal_mean",
    "maps.similarity": "similarity_map",
    "network.retrying": "Patience",
    "providers.cache": "PatchCache open_cache",
    "providers.earth_engine.provider": "EarthEngineProvider",
    "providers.local": "LocalProvider",
    "providers.sample": "SAMPLE_PLACE",
    "providers.stac.provider": "StacProvider",
    "registry": "describe_model list_models list_weights",
    "specs": "BBox FetchSpec InputPrepSpec OutputSpec PointBuffer SensorSpec TemporalSpec",
    "tables.batch": "BatchReport export_batch plan_batch",
    "tables.export": "EmbeddingTable embed_table load_export",
    "tables.nearest": "nearest",
    "training.pretraining": "pretrain",
    "training.recipe": "read_recipe",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
_PACKAGES = ("plotting",)
__all__ = sorted(["__version__", *_PACKAGES, *_HOMES])


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
