"""Refuse what files of features may compute or fetch while GDAL lists and reads their layers."""

from __future__ import annotations

import re
import shlex
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from rs_embed.errors import SpecError

# Of a view, or of all views together; and of one value in them.
VIEW_SECONDS, VIEW_ROWS = 5, 1_000_000
_VALUE_BYTES = 2**28
_HEAD = 1024
_DATABASE = b"SQLite format 3\0"
# Files that name other files or services, which GDAL would open.
_POINTERS = re.compile(rb"<OGR\w*(?:DataSource|Layer)|gdal_streamed_alg")
# What may differ when GDAL evaluates a view once more.
_CHANGING = {
    "random", "randomblob", "sqlite_version", "sqlite_source_id", "sqlite_compileoption_used",
    "sqlite_compileoption_get", "changes", "total_changes", "last_insert_rowid",
}  # fmt: skip


def check_layers(path: Path, layer: str | None = None) -> None:
    """Raise `SpecError` if listing the layers of a file, or reading ``layer``, may not end.

    Views of a GeoPackage or another SQLite file are evaluated, within `VIEW_SECONDS` and without
    extensions: their first row, which GDAL looks at in each view, and `VIEW_ROWS` of ``layer``.
    """
    own, *packed = _heads(path)
    if any(_POINTERS.search(head) for head in (own, *packed)):
        raise SpecError(
            f"{path}: names other files or services (an OGR VRT or the like), expected the "
            "features themselves; convert it: ogr2ogr out.gpkg " + shlex.quote(str(path))
        )
    if any(head.startswith(_DATABASE) for head in packed):
        raise SpecError(f"{path}: holds a database within an archive; unpack it first")
    if not own.startswith(_DATABASE):
        return
    try:
        with closing(_opened(path)) as database:
            for name in _views(database):
                _evaluate(path, database, name, VIEW_ROWS + 1 if name == layer else 1)
    except sqlite3.Error as exc:
        raise SpecError(f"{path}: cannot be read as a database ({exc})") from exc


def _heads(path: Path) -> Iterator[bytes]:
    """Yield the first bytes of a file and, if it is a ZIP archive, of each member."""
    try:
        with path.open("rb") as file:
            yield file.read(_HEAD)
        if path.suffix.lower() in (".zip", ".kmz", ".shz"):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    with archive.open(member) as file:
                        yield file.read(_HEAD)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, EOFError) as exc:
        raise SpecError(f"{path}: cannot be read ({exc})") from exc


def _opened(path: Path) -> sqlite3.Connection:
    """Return a read-only connection in which a schema can call no function but those of SQLite."""
    # What is not yet in the file itself is read too: GDAL does so.
    unchanging = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    address = f"file:{quote(str(path.absolute()))}?mode=ro{unchanging}"
    database = sqlite3.connect(address, uri=True)
    database.execute("PRAGMA trusted_schema = OFF")
    database.text_factory = bytes
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
    end = time.monotonic() + VIEW_SECONDS
    database.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    return database


def _views(database: sqlite3.Connection) -> list[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'view'")
    return [name.decode(errors="replace") for (name,) in rows]


def _allow(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    refused = action == sqlite3.SQLITE_FUNCTION and str(function).lower() in _CHANGING
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


def _evaluate(path: Path, database: sqlite3.Connection, view: str, limit: int) -> None:
    """Raise `SpecError` if a view takes too long, has more rows, or needs other functions."""
    quoted = view.replace('"', '""')
    database.set_authorizer(_allow)
    try:
        rows = database.execute(f'SELECT * FROM "{quoted}" LIMIT {limit}')  # noqa: S608
        count = sum(1 for _ in rows)
    except sqlite3.Error as exc:
        late = f"it takes more than {VIEW_SECONDS} s"
        reason = late if "interrupted" in str(exc) else f"it cannot be evaluated: {exc}"
    else:
        if count <= VIEW_ROWS:
            return
        reason = f"it has more than {VIEW_ROWS:,} rows"
    raise SpecError(
        f"{path}: the view {view!r} is not read ({reason}); if it is the layer to read and you "
        "trust it, make a table of it, else copy the layer to read: ogr2ogr tables.gpkg "
        f"{shlex.quote(str(path))} LAYER"
    )
