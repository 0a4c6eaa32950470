"""``rs-embed cache``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rs_embed.addresses import path_of
from rs_embed.cli.options import Json
from rs_embed.cli.printing import echo, print_json
from rs_embed.errors import SpecError
from rs_embed.settings import CACHE_DIR, Settings

if TYPE_CHECKING:
    from rs_embed import PatchCache

Folder = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of the cache.", show_default=CACHE_DIR.name),
]

cache = typer.Typer(no_args_is_help=True)


@cache.callback()
def _group() -> None:
    """List or clear the cache of downloaded pixels.

    [dim]rs-embed cache ls[/dim]

    [dim]rs-embed cache clear --older-than 90[/dim]
    """


@cache.command("ls")
def ls(folder: Folder = None, json: Json = False) -> None:
    """List the entries of the cache, most recently used first.

    [dim]rs-embed cache ls --cache ~/patches[/dim]
    """
    kept = opened_cache(folder)
    rows = [entry.to_json() for entry in kept.ls()]
    total = sum(row["bytes"] for row in rows)
    if json:
        totals = {"folder": str(kept.folder), "bytes": total, "max_bytes": kept.max_bytes}
        print_json({**totals, "entries": rows})
        return
    for row in rows:
        echo(_line(row))
    echo(f"{_entries(len(rows))} in {kept.folder}, {total:,} of {kept.max_bytes:,} bytes")


@cache.command("clear")
def clear(
    folder: Folder = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="DAYS", help="Remove only entries downloaded more than DAYS days ago."
        ),
    ] = None,
) -> None:
    """Remove entries from the cache; other files in the folder are left alone.

    [dim]rs-embed cache clear --older-than 90[/dim]
    """
    kept = opened_cache(folder)
    age = None if older_than is None else timedelta(days=older_than)
    count, size = kept.clear(older_than=age)
    echo(f"removed {_entries(count)}, {size:,} bytes, from {kept.folder}")


def opened_cache(folder: str | Path | None, *, shared: bool = False) -> PatchCache:
    """Return the cache in an existing folder, that of the environment if not stated."""
    from rs_embed import PatchCache

    settings = Settings.from_environ()
    named = settings.cache_dir if folder is None else path_of(folder).expanduser()
    if named is None:
        raise SpecError(f"got no folder; pass --cache FOLDER, or set {CACHE_DIR.name}")
    if not named.is_dir():
        raise SpecError(f"got {str(named)!r}, expected an existing folder (--cache FOLDER)")
    return PatchCache(named, settings.cache_gb * 10**9, shared=shared)


def _entries(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def _line(row: dict[str, Any]) -> str:
    if row["provider"] is None:
        return f"{row['fetched']}  damaged: {row['file']}, {row['bytes']:,} bytes"
    return (
        f"{row['fetched']}  {row['provider']}  lon {row['lon']}, lat {row['lat']}, "
        f"{row['height_px']} x {row['width_px']} px of {row['pixel_size']:g}, "
        f"{row['start']} to {row['end']}, {row['bytes']:,} bytes"
    )
