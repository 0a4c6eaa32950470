"""``rs-embed doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

import rs_embed
from rs_embed._optional import install
from rs_embed.cli.options import Json, print_json
from rs_embed.errors import RsEmbedError
from rs_embed.settings import CACHE_DIR, SCALEMAE_ID, Settings, stated_variables


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``missing`` is fine where it is optional, ``broken`` never is."""

    state: Literal["ok", "missing", "broken"]
    what: str
    found: str
    mend: str = ""


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the services too whether they answer.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what is installed, which imagery and weights can be used, and how to mend the rest.

    Touches no network without --online. Exit code 1 if something is broken.

    [dim]rs-embed doctor[/dim]
    """
    findings = [
        *_packages(),
        *_settings(),
        *_devices(),
        *_backends(online=online),
        *_costs(),
        *_cache(),
        *_weights(),
    ]
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mend = f"\n         -> {finding.mend}" if finding.mend else ""
            typer.echo(f"{finding.state:<8} {finding.what}: {finding.found}{mend}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "rs-embed", f"{rs_embed.__version__}, Python {platform.python_version()}")
    for name in ("torch", "numpy", "pillow", "rasterio", "pyproj", "xarray", "huggingface-hub"):
        yield Finding("ok", name, importlib.metadata.version(name))
    for extra, modules, purpose in (
        ("gee", ("ee", "stamina"), "backend='gee'"),
        ("stac", ("pystac_client", "stamina"), "backend='stac'"),
        ("netcdf", ("h5netcdf", "h5py"), "netCDF files"),
        (
            "maps",
            ("zarr", "dask", "rio_cogeo", "shapely", "pyogrio", "exactextract"),
            "maps of whole areas",
        ),
        ("train", ("sklearn", "pyarrow", "matplotlib"), "linear probes, tables and pictures"),
        ("rshf", ("rshf",), "loader='rshf'"),
    ):
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
        from rs_embed.models.scalemae.encoder import resolve_device
    except (ImportError, OSError, RuntimeError) as exc:
        yield Finding("broken", "torch", f"cannot be imported: {exc}", "reinstall it")
        return

    yield Finding("ok", "device auto", f"runs on {resolve_device('auto').type}")
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
            found, _, mend = provider.status(online=online).partition("; ")
            if found.startswith("missing: "):
                yield Finding("missing", f"backend {name}", found.removeprefix("missing: "), mend)
            else:
                yield Finding("ok", f"backend {name}", f"{found}; {mend}" if mend else found)
        except RsEmbedError as exc:
            yield Finding("broken", f"backend {name}", str(exc))
    order = f"the first that is configured of {', '.join(AUTO_ORDER)}"
    try:
        chosen = first_configured(Settings.from_environ())
    except RsEmbedError as exc:
        yield Finding("broken", "backend auto", str(exc))
        return
    if chosen is None:
        yield Finding("missing", "backend auto", order, "configure one of them, see above")
    else:
        yield Finding("ok", "backend auto", f"takes {chosen}, {order}")


def _costs() -> Iterator[Finding]:
    """Yield what a place asks of each backend that is a service; asks nothing of it."""
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
            continue  # said above
        if cost.requests:
            size = f" and {cost.download_bytes / 1e6:.1f} MB" if cost.download_bytes else ""
            asked = f"{cost.requests} request{'s' if cost.requests > 1 else ''}{size}"
            yield Finding(
                "ok", f"cost of backend {name}", f"{asked} for a place of 2.56 km; {cost.more}"
            )


def _cache() -> Iterator[Finding]:
    from rs_embed.providers.cache import PatchCache

    try:
        settings = Settings.from_environ()
    except RsEmbedError:
        return  # said above
    folder, bound = settings.cache_dir, settings.cache_gb
    if folder is None:
        yield Finding("ok", "cache", f"off; {CACHE_DIR.name} names a folder to keep pixels in")
        return
    try:
        folder.stat()
        count, size = PatchCache(folder, bound * 10**9).usage()
    except FileNotFoundError:
        yield Finding("ok", "cache", f"{folder}, made when first used, of at most {bound} GB")
    except OSError as exc:
        mend = f"set {CACHE_DIR.name} to a folder, or unset it"
        yield Finding("broken", "cache", str(exc), mend)
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
        mend = (
            "they are downloaded at the first use; without a network pass a folder or file as "
            "weights=, or take the small ones that ship: weights='scalemae-tiny'"
        )
        yield Finding("missing", f"weights {name}", "not on disk", mend)
    else:
        yield Finding("ok", f"weights {name}", str(found.path))
