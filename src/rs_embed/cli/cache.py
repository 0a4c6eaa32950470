"""``rs-embed cache``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed.cli.options import Json, print_json
from rs_embed.errors import SpecError
from rs_embed.settings import CACHE_DIR, Settings

if TYPE_CHECKING:
    from rs_embed.providers.cache import PatchCache
    from rs_embed.providers.cache_files import Entry

Folder = Annotated[
    Path | None,
    typer.Option("--cache", help="The folder.", show_default=CACHE_DIR.name),
]

cache = typer.Typer(no_args_is_help=True)


@cache.callback()
def _group() -> None:
    """List or clear the pixels that are kept.

    [dim]rs-embed cache ls[/dim]

    [dim]rs-embed cache clear --older-than 90[/dim]
    """


@cache.command("ls")
def ls(folder: Folder = None, json: Json = False) -> None:
    """List the pixels that are kept, the last used first.

    [dim]rs-embed cache ls --cache ~/patches[/dim]
    """
    kept = _cache(folder)
    rows = [_row(entry) for entry in kept.ls()]
    total = sum(row["bytes"] for row in rows)
    if json:
        totals = {"folder": str(kept.folder), "bytes": total, "max_bytes": kept.max_bytes}
        print_json({**totals, "entries": rows})
        return
    for row in rows:
        typer.echo(_line(row))
    typer.echo(f"{len(rows)} entries in {kept.folder}, {total:,} of {kept.max_bytes:,} bytes")


@cache.command("clear")
def clear(
    folder: Folder = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Only what was fetched more days ago."),
    ] = None,
) -> None:
    """Remove the pixels that are kept; other files in the folder stay.

    [dim]rs-embed cache clear --older-than 90[/dim]
    """
    kept = _cache(folder)
    age = None if older_than is None else timedelta(days=older_than)
    count, size = kept.clear(older_than=age)
    typer.echo(f"removed {count} entries, {size:,} bytes, from {kept.folder}")


def _cache(folder: Path | None) -> PatchCache:
    from rs_embed.providers.cache import PatchCache

    settings = Settings.from_environ()
    named = settings.cache_dir if folder is None else folder.expanduser()
    if named is None:
        raise SpecError(
            f"got no folder, expected --cache FOLDER, or {CACHE_DIR.name} to be set to one"
        )
    if not named.is_dir():
        raise SpecError(f"got {str(named)!r}, expected a folder that exists (--cache FOLDER)")
    return PatchCache(named, settings.cache_gb * 10**9)


def _row(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON values; those that its key tells are None where it is damaged."""
    row: dict[str, Any] = {
        "file": entry.path.name,
        "fetched": entry.fetched.isoformat(timespec="seconds"),
        "used": entry.used.isoformat(timespec="seconds"),
        "bytes": entry.size,
    }
    told = ("provider", "lon", "lat", "height_px", "width_px", "pixel_size", "start", "end")
    return {**row, **(dict.fromkeys(told) if entry.key is None else _told(entry.key))}


def _told(key: Any) -> dict[str, Any]:
    from affine import Affine

    from rs_embed.geo.grid import Grid, known_crs

    place = key["grid"]
    height, width = place["shape"]
    transform = Affine(*place["transform"])
    grid = Grid(known_crs(place["crs"]), transform, (height, width))
    # The middle pixel, or the middle two: the bounds of a large grid are no rectangle in degrees.
    middle = grid.enlarged(2 - height % 2, 2 - width % 2)
    west, south, east, north = middle.geographic_bounds()
    return {
        "provider": key["provider"],
        "lon": round((west + east) / 2, 5),
        "lat": round((south + north) / 2, 5),
        "height_px": height,
        "width_px": width,
        "pixel_size": transform.a,
        **key["temporal"],
    }


def _line(row: dict[str, Any]) -> str:
    if row["provider"] is None:
        return f"{row['fetched']}  damaged: {row['file']}, {row['bytes']:,} bytes"
    return (
        f"{row['fetched']}  {row['provider']}  lon {row['lon']}, lat {row['lat']}, "
        f"{row['height_px']} x {row['width_px']} px of {row['pixel_size']:g}, "
        f"{row['start']} to {row['end']}, {row['bytes']:,} bytes"
    )
