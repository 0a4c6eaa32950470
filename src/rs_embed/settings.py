"""Environment variables. Only this module reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rs_embed.addresses import path_of, shown_path
from rs_embed.errors import SettingsError


@dataclass(frozen=True)
class Variable:
    """An environment variable: name, documented default and effect."""

    name: str
    default: str
    effect: str


FETCH_WORKERS = 8
CACHE_GB_DEFAULT = 10

SCALEMAE_ID = Variable(
    "RS_EMBED_SCALEMAE_ID",
    "MVRL/scalemae-vitlarge-800",
    "weights: a Hugging Face id (optionally with @revision), a folder, a file, or scalemae-tiny",
)
SCALEMAE_IMG = Variable(
    "RS_EMBED_SCALEMAE_IMG",
    "224, or image_size of the weights' config.json",
    "side of the model's input, pixels; a multiple of the patch size",
)
SCALEMAE_FETCH_WORKERS = Variable(
    "RS_EMBED_SCALEMAE_FETCH_WORKERS",
    str(FETCH_WORKERS),
    "threads that read imagery ahead in batch calls",
)
SCALEMAE_BATCH_SIZE = Variable(
    "RS_EMBED_SCALEMAE_BATCH_SIZE",
    "8 on CPU (more if images are small), 32 on CUDA",
    "images per forward pass in batch calls",
)
LOCAL = Variable(
    "RS_EMBED_LOCAL",
    "not set",
    "imagery of backend='local': a folder, a raster file, or a STAC .json",
)
EE_ENDPOINT = Variable(
    "RS_EMBED_EE_ENDPOINT",
    "standard",
    "endpoint of backend='gee': standard, high-volume, or a URL",
)
STAC = Variable(
    "RS_EMBED_STAC",
    "earth-search",
    "catalogue of backend='stac': earth-search, planetary-computer, or the URL of a STAC API or a "
    "static catalogue",
)
CACHE_DIR = Variable(
    "RS_EMBED_CACHE_DIR",
    "not set",
    "folder where fetched pixels are kept for later calls; no pixels are kept if it is not set",
)
CACHE_GB = Variable(
    "RS_EMBED_CACHE_GB",
    str(CACHE_GB_DEFAULT),
    "maximum size of that folder in gigabytes; the least recently used pixels are removed first",
)
CACHE_SHARED = Variable(
    "RS_EMBED_CACHE_SHARED",
    "0",
    "1 to use pixels in that folder that other users wrote or can write; they decide what you see",
)
# Variables of Earth Engine's tools; the first one that is set counts.
EE_PROJECTS = ("EE_PROJECT", "GOOGLE_CLOUD_PROJECT")
SCALEMAE_VARIABLES = (SCALEMAE_ID, SCALEMAE_IMG, SCALEMAE_FETCH_WORKERS, SCALEMAE_BATCH_SIZE)
VARIABLES = (*SCALEMAE_VARIABLES, LOCAL, EE_ENDPOINT, STAC, CACHE_DIR, CACHE_GB, CACHE_SHARED)


@dataclass(frozen=True)
class Settings:
    """Settings from the environment; explicit arguments take precedence.

    Attributes
    ----------
    scalemae_id : str
        Weights of the model ``scalemae``.
    scalemae_img : int or None
        Side of its input, pixels; None uses the checkpoint's config, else 224.
    scalemae_fetch_workers : int
        Reader threads of batch calls.
    scalemae_batch_size : int or None
        Images per forward pass; None lets the device decide (at least 8 on CPU, 32 on CUDA).
    local : pathlib.Path or None
        Root of the imagery of ``backend="local"``; None if not set.
    ee_project : str or None
        Google Cloud project to which Earth Engine attributes requests (``EE_PROJECT``, else
        ``GOOGLE_CLOUD_PROJECT``); None uses the project of the credentials.
    ee_endpoint : str
        ``"standard"``, ``"high-volume"`` or a URL.
    stac : str
        Name of a known catalogue, or a URL.
    cache_dir : pathlib.Path or None
        Where fetched pixels are kept; None if they are not.
    cache_gb : int
        Maximum size of that folder, gigabytes.
    cache_shared : bool
        Whether pixels in it that other users can write are used.
    records_dir : pathlib.Path
        Where small, reproducible records are kept (``$XDG_CACHE_HOME/rs_embed``).
    """

    scalemae_id: str
    scalemae_img: int | None
    scalemae_fetch_workers: int
    scalemae_batch_size: int | None
    local: Path | None
    ee_project: str | None
    ee_endpoint: str
    stac: str
    cache_dir: Path | None
    cache_gb: int
    cache_shared: bool
    records_dir: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings in ``environ``, with defaults for variables that are not set.

        Raises
        ------
        SettingsError
            If a variable is empty, or not a number or switch where one is required; also for
            ``OMP_NUM_THREADS``.
        """
        cache_home = environ.get("XDG_CACHE_HOME") or "~/.cache"
        try:
            records_dir = Path(cache_home).expanduser() / "rs_embed"
        except RuntimeError as exc:
            raise SettingsError(f"got XDG_CACHE_HOME={cache_home!r}: {exc}") from exc
        stated_threads(environ)  # a number that PyTorch would ignore is refused
        return cls(
            scalemae_id=_text(environ, SCALEMAE_ID),
            scalemae_img=_whole_number(environ, SCALEMAE_IMG),
            scalemae_fetch_workers=_whole_number(environ, SCALEMAE_FETCH_WORKERS) or FETCH_WORKERS,
            scalemae_batch_size=_whole_number(environ, SCALEMAE_BATCH_SIZE),
            local=_path(environ, LOCAL),
            ee_project=next((environ[name] for name in EE_PROJECTS if environ.get(name)), None),
            ee_endpoint=_text(environ, EE_ENDPOINT),
            stac=_text(environ, STAC),
            cache_dir=_path(environ, CACHE_DIR),
            cache_gb=_whole_number(environ, CACHE_GB) or CACHE_GB_DEFAULT,
            cache_shared=_switch(environ, CACHE_SHARED),
            records_dir=records_dir,
        )


def stated_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that are set in ``environ``, by name, without credentials of URLs."""
    return {v.name: shown_path(environ[v.name]) for v in VARIABLES if v.name in environ}


def _text(environ: Mapping[str, str], variable: Variable) -> str:
    value = environ.get(variable.name, variable.default).strip()
    if not value:
        raise SettingsError(
            f"{variable.name} is set but empty, expected {variable.effect}; "
            f"unset it for the default {variable.default!r}"
        )
    return value


def _path(environ: Mapping[str, str], variable: Variable) -> Path | None:
    if variable.name not in environ:
        return None
    value = _text(environ, variable)
    try:
        return path_of(value).expanduser()
    except RuntimeError as exc:
        raise SettingsError(f"got {variable.name}={value!r}: {exc}") from exc


def _whole_number(environ: Mapping[str, str], variable: Variable) -> int | None:
    if variable.name not in environ:
        return None
    value = _text(environ, variable)
    if not (value.isascii() and value.isdigit()) or int(value) < 1:
        raise SettingsError(
            f"got {variable.name}={value!r}, expected a whole number of at least 1 "
            f"({variable.effect}); unset it for the default ({variable.default})"
        )
    return int(value)


def _switch(environ: Mapping[str, str], variable: Variable) -> bool:
    value = _text(environ, variable)
    if value not in ("0", "1"):
        raise SettingsError(f"got {variable.name}={value!r}, expected 0, or {variable.effect}")
    return value == "1"


def child_environment(import_path: str, card: int | None = None) -> dict[str, str]:
    """Return the environment of a child process that imports from ``import_path``.

    Of the CUDA devices that this process sees, it sees the one of the given number, if any.
    """
    environment = {**os.environ, "PYTHONPATH": import_path}
    if card is not None:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = (
            visible.split(",")[card].strip() if visible else str(card)
        )
    return environment


def set_default(name: str, value: str) -> None:
    """Set a variable of another library for this process, unless it is set."""
    os.environ.setdefault(name, value)


def stated_threads(environ: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of threads of a forward pass in ``OMP_NUM_THREADS``, if it is set.

    Raises
    ------
    SettingsError
        If it is not a whole number of at least 1. In a list of numbers, the first counts.
    """
    value = environ.get("OMP_NUM_THREADS", "").strip()
    if not value:
        return None
    numbers = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) >= 1 for part in numbers):
        raise SettingsError(
            f"got OMP_NUM_THREADS={value!r}, expected a whole number of at least 1: the threads of "
            "a forward pass; unset it to use all cores"
        )
    return int(numbers[0])


def stated_ray_address(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of a Ray cluster in ``RAY_ADDRESS``, if it is set."""
    return environ.get("RAY_ADDRESS")


def stated_gdal_http(
    names: Iterable[str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return which of GDAL's options are of requests (``GDAL_HTTP_TIMEOUT``...) and set."""
    return {n: environ[n] for n in names if n.startswith("GDAL_HTTP_") and n in environ}


def stated_google_credentials(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file given by ``GOOGLE_APPLICATION_CREDENTIALS``, if it is set."""
    path = environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    return Path(path) if path else None


def google_credentials(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the files in which Earth Engine and Google Cloud look for credentials, in order.

    ``earthengine authenticate`` writes the first. The second is given by
    ``GOOGLE_APPLICATION_CREDENTIALS``, if it is set. ``gcloud auth application-default login``
    writes the last (in ``CLOUDSDK_CONFIG``, if it is set).
    """
    earth_engine = Path.home() / ".config" / "earthengine" / "credentials"
    stated = stated_google_credentials(environ)
    roaming = environ.get("APPDATA")  # Windows
    home = Path(roaming) if roaming else Path.home() / ".config"
    folder = Path(environ.get("CLOUDSDK_CONFIG") or home / "gcloud")
    default = folder / "application_default_credentials.json"
    return (earth_engine, *((stated,) if stated else ()), default)
