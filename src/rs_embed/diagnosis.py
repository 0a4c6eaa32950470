"""What is installed, which imagery and weights can be used, and how to fix the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rs_embed._optional import install
from rs_embed._version import __version__
from rs_embed.errors import RsEmbedError
from rs_embed.settings import CACHE_DIR, SCALEMAE_ID, Settings, stated_variables

_PACKAGES = ("torch", "numpy", "pillow", "rasterio", "pyproj", "xarray", "huggingface-hub")
# Extra -> its modules, and what they are for.
_EXTRAS = {
    "gee": (("ee", "stamina"), "backend='gee'"),
    "stac": (("pystac_client", "stamina"), "backend='stac'"),
    "netcdf": (("h5netcdf", "h5py"), "netCDF files"),
    "maps": (
        ("zarr", "dask", "rio_cogeo", "shapely", "pyogrio", "exactextract"),
        "maps of whole areas",
    ),
    "plot": (("matplotlib", "sklearn", "geopandas", "pyarrow"), "figures of maps and tables"),
    "train": (("sklearn", "pyarrow", "matplotlib"), "linear probes, tables and pictures"),
    "classify": (("sklearn", "skops", "pandas", "geopandas", "pyarrow"), "classifiers"),
    "onnx": (("onnx", "onnxruntime"), "runtime='onnx'"),
    "rshf": (("rshf",), "loader='rshf'"),
}


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Attributes
    ----------
    state : {"ok", "missing", "broken"}
        ``"missing"`` is fine for what is optional; ``"broken"`` never is.
    what : str
        What was checked, for example ``"backend gee"``.
    found : str
        What was found.
    fix : str
        How to fix it; empty if nothing is wrong.
    """

    state: Literal["ok", "missing", "broken"]
    what: str
    found: str
    fix: str = ""


def diagnose(*, online: bool = False) -> list[Finding]:
    """Return what is installed, which backends and weights can be used, and how to fix the rest.

    Parameters
    ----------
    online : bool
        Also check that the services of the backends respond; otherwise the network is not used.
    """
    return [
        *_packages(),
        *_settings(),
        *_devices(),
        *_backends(online=online),
        *_costs(),
        *_cache(),
        *_weights(),
    ]


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "rs-embed", f"{__version__}, Python {platform.python_version()}")
    for name in _PACKAGES:
        yield Finding("ok", name, importlib.metadata.version(name))
    for extra, (modules, purpose) in _EXTRAS.items():
        if any(importlib.util.find_spec(module) is None for module in modules):
            yield Finding("missing", f"extra {extra}", f"not installed ({purpose})", install(extra))
        else:
            yield Finding("ok", f"extra {extra}", purpose)


def _settings() -> Iterator[Finding]:
    for name, value in stated_variables().items():
        yield Finding("ok", name, repr(value))
    try:
        Settings.from_environ()
    except RsEmbedError as exc:
        yield Finding("broken", "environment", str(exc))


def _devices() -> Iterator[Finding]:
    try:
        from rs_embed.models.devices import resolve_device
    except (ImportError, OSError, RuntimeError) as exc:
        yield Finding("broken", "torch", f"cannot be imported: {exc}", "reinstall it")
        return

    yield Finding("ok", "device auto", f"uses {resolve_device('auto').type}")
    for name in ("cuda", "mps"):
        try:
            resolve_device(name)
        except RsEmbedError as exc:
            yield Finding("missing", f"device {name}", "not available", str(exc))
        else:
            yield Finding("ok", f"device {name}", "available")


def _backends(*, online: bool) -> Iterator[Finding]:
    from rs_embed.registry import AUTO_ORDER, find_provider, first_configured, provider_names

    for name in provider_names():
        try:
            provider = find_provider(name, Settings.from_environ())
            found, _, fix = provider.status(online=online).partition("; ")
        except RsEmbedError as exc:
            yield Finding("broken", f"backend {name}", str(exc))
            continue
        if found.startswith("missing: "):
            yield Finding("missing", f"backend {name}", found.removeprefix("missing: "), fix)
        else:
            yield Finding("ok", f"backend {name}", f"{found}; {fix}" if fix else found)
    order = f"the first of {', '.join(AUTO_ORDER)} that is configured"
    try:
        chosen = first_configured(Settings.from_environ())
    except RsEmbedError as exc:
        yield Finding("broken", "backend auto", str(exc))
        return
    if chosen is None:
        yield Finding("missing", "backend auto", order, "configure one of them, see above")
    else:
        yield Finding("ok", "backend auto", f"uses {chosen}, {order}")


def _costs() -> Iterator[Finding]:
    """Yield what one place costs at each backend that is a service; uses no network."""
    from rs_embed.geo.grid import roi_grid
    from rs_embed.registry import describe_model, find_provider, provider_names
    from rs_embed.specs import PointBuffer, SensorSpec

    inputs = describe_model("scalemae")["inputs"]
    sensor = SensorSpec(inputs["collection"], tuple(inputs["bands"]), inputs["scale_m"])
    grid = roi_grid(PointBuffer(lon=0, lat=45, buffer_m=1280), inputs["scale_m"])
    for name in provider_names():
        try:
            cost = find_provider(name, Settings.from_environ()).cost(grid, sensor=sensor)
        except RsEmbedError:
            continue  # reported by _backends
        if cost.requests:
            size = f" and {cost.download_bytes / 1e6:.1f} MB" if cost.download_bytes else ""
            amount = f"{cost.requests} request{'s' if cost.requests > 1 else ''}{size}"
            yield Finding(
                "ok", f"cost of backend {name}", f"{amount} for a place of 2.56 km; {cost.more}"
            )


def _cache() -> Iterator[Finding]:
    from rs_embed.providers.cache import PatchCache

    try:
        settings = Settings.from_environ()
    except RsEmbedError:
        return  # reported by _settings
    folder, bound = settings.cache_dir, settings.cache_gb
    if folder is None:
        yield Finding("ok", "cache", f"off; set {CACHE_DIR.name} to a folder to keep pixels in it")
        return
    try:
        folder.stat()
        count, size = PatchCache(folder, bound * 10**9).usage()
    except FileNotFoundError:
        yield Finding("ok", "cache", f"{folder}, created on first use, at most {bound} GB")
    except OSError as exc:
        fix = f"set {CACHE_DIR.name} to a folder, or unset it"
        yield Finding("broken", "cache", str(exc), fix)
    else:
        yield Finding("ok", "cache", f"{folder}, {count} entries, {size:,} bytes of {bound} GB")


def _weights() -> Iterator[Finding]:
    from rs_embed.models.weights import weights_on_disk

    name = stated_variables().get(SCALEMAE_ID.name, SCALEMAE_ID.default)
    try:
        found = weights_on_disk(name)
    except RsEmbedError as exc:
        yield Finding("broken", "weights", str(exc))
        return
    if found is None:
        fix = (
            "they are downloaded on first use; without a network, pass a folder or file as "
            "weights=, or use the small weights of the package: weights='scalemae-tiny'"
        )
        yield Finding("missing", f"weights {name}", "not on disk", fix)
    else:
        yield Finding("ok", f"weights {name}", str(found.path))
