"""The Python reference: which public name is on which page, made from the docstrings."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Page -> title, package, public names.
API = {
    "places": ("Embed places", "rs_embed", """
        get_embedding get_embeddings_batch iter_embeddings inspect_input Inspection estimate
        Estimate load_model LoadedModel Embedding stack"""),
    "specs": ("Places, periods, sensors", "rs_embed", """
        PointBuffer BBox TemporalSpec SensorSpec FetchSpec OutputSpec InputPrepSpec Grid Raster
        gsd_m roi_grid SAMPLE_PLACE"""),
    "tables": ("Tables and search", "rs_embed", """
        export_batch plan_batch BatchReport load_export embed_table EmbeddingTable nearest Places
        places_of NamedPlace read_places Vectors read_vectors"""),
    "maps": ("Maps and change", "rs_embed", """
        embed_area plan_area MapPlan MapReport check_output open_map restored sample_points
        zonal_mean similarity_map change Change"""),
    "classes": ("Classes and clusters", "rs_embed", "fit_classifier Classifier cluster_map"),
    "plots": ("Plots", "rs_embed.plotting", """
        pca similarity clusters change histogram coverage save"""),
    "explorer": ("Explorer", "rs_embed", "explore Explorer"),
    "imagery": ("Sources of imagery", "rs_embed", """
        StacProvider EarthEngineProvider LocalProvider Patience open_cache PatchCache"""),
    "models": ("Models and installation", "rs_embed", """
        list_models describe_model list_weights diagnose Finding __version__"""),
    "evaluation": ("Evaluation", "rs_embed", "evaluate score_embeddings EvaluationReport"),
    "training": ("Training", "rs_embed", "pretrain read_recipe"),
    "errors": ("Errors and warnings", "rs_embed", """
        RsEmbedError SpecError UnknownNameError SettingsError GridError ImageryError DatasetError
        ProviderError NoImageryError ModelError CheckpointError TrainingError EngineError
        ExportError MissingDependencyError RsEmbedWarning GsdWarning CoverageWarning
        TemporalWarning ImageryWarning"""),
    "new-models": ("Write a model", "rs_embed.models.base", """
        Model ModelDescription Option InputContract Weights Plan Preparation Frame Encoder
        Tokens"""),
    "new-providers": ("Write a provider", "rs_embed.providers.base", """
        Provider RegisteredProvider Cost"""),
    "testing": ("Test suites", "rs_embed.testing", "ModelContract ProviderContract"),
}  # fmt: skip


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    for page, (title, package, names) in API.items():
        blocks = [f"::: {package}.{name}" for name in names.split()]
        content = "\n\n".join([f"# {title}", *blocks])
        files.append(File.generated(config, f"api/{page}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let the search show the pages that people wrote before those of the reference."""
    if page.file.src_uri.startswith("api/"):
        page.meta["search"] = {"boost": 0.3}
    return markdown


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Leave signatures out of the search, whose results then begin with what a function does."""
    if not page.file.src_uri.startswith("api/"):
        return html
    signature = '<div class="doc-signature highlight"'
    if signature not in html:
        raise PluginError(
            f"{page.file.src_uri} has no {signature}: mkdocstrings names them otherwise"
        )
    return html.replace(signature, f"{signature} data-search-exclude")
