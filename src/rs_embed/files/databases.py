"""Refuse what files of features may compute or fetch while GDAL lists and reads their layers."""

from __future__ import annotations

import re
import shlex
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from rs_embed.errors import SpecError

# Of a view, or of all views together; and of one value in them.
VIEW_SECONDS, VIEW_ROWS = 5, 1_000_000
_VALUE_BYTES = 2**28
# Kinds of columns in `pragma_table_xinfo`: generated, virtual or stored.
_COMPUTED = (2, 3)
_HEAD = 1024
_DATABASE = b"SQLite format 3\0"
# Files that name other files or services, which GDAL would open.
_POINTERS = re.compile(rb"<OGR\w*(?:DataSource|Layer)|gdal_streamed_alg")
# What may differ when GDAL evaluates a view once more.
_CHANGING = {
    "random", "randomblob", "sqlite_version", "sqlite_source_id", "sqlite_compileoption_used",
    "sqlite_compileoption_get", "changes", "total_changes", "last_insert_rowid",
}  # fmt: skip


def listed_layers(path: Path) -> list[tuple[str, str | None]] | None:
    """Return the layers of a GeoPackage and their type of geometry; None for other files.

    GDAL would evaluate each view to list them.

    Raises
    ------
    SpecError
        If listing the layers of the file may not end, or shows others.
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
        return None
    with _database(path) as database:
        if "gpkg_contents" in _names(database, "table"):
            rows = database.execute(
                "SELECT c.table_name, g.geometry_type_name FROM gpkg_contents AS c "
                "LEFT JOIN gpkg_geometry_columns AS g ON c.table_name = g.table_name "
                "WHERE c.data_type IN ('features', 'attributes')"
            )
            return [(_text(name), kind and _text(kind)) for name, kind in rows]
        for name in _names(database, "view"):
            _evaluate(path, database, name, 1)
        return None


def check_layer(path: Path, layer: str) -> None:
    """Raise `SpecError` if reading a layer of a database may not end.

    A view is evaluated, within `VIEW_SECONDS` and `VIEW_ROWS` and without extensions.
    """
    if not next(_heads(path)).startswith(_DATABASE):
        return
    with _database(path) as database:
        if layer in _names(database, "view"):
            _evaluate(path, database, layer, VIEW_ROWS + 1)
        columns = database.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", [layer])
        computed = [_text(name) for name, hidden in columns if hidden in _COMPUTED]
        if computed:
            raise SpecError(
                f"{path}: the column {computed[0]!r} of {layer!r} is computed when it is read, "
                "which may not end; copy the layer: ogr2ogr copy.gpkg "
                f"{shlex.quote(str(path))} {shlex.quote(layer)}"
            )


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(_opened(path)) as database:
            yield database
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


def _names(database: sqlite3.Connection, kind: str) -> list[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = ?", [kind])
    return [_text(name) for (name,) in rows]


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


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
        f"{path}: the view {view!r} is not read ({reason}); if you trust it, make a table of it: "
        f"ogr2ogr table.gpkg {shlex.quote(str(path))} {shlex.quote(view)}"
    )
