"""Finished results on disk, one by one, so that a run can continue after any interruption."""

from __future__ import annotations

import json
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rs_embed.addresses import check_regular
from rs_embed.errors import ExportError, SpecError, some
from rs_embed.files.writing import check_place

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

# "rsej" in the header of the database file marks it as a journal of rs_embed.
_APPLICATION_ID = 0x7273656A
# The long values come last: SQLite then reads none of them to find what is done.
_SCHEMA = """
CREATE TABLE request (json TEXT NOT NULL);
CREATE TABLE result (
    key TEXT PRIMARY KEY, error TEXT, checksum INTEGER NOT NULL, meta TEXT, vector BLOB
);
"""
_UNWRITABLE = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)  # fmt: skip
_MOST_DIFFERENCES = 5
# Whoever holds a lock does so for hours; but of two that try at once neither would get it.
_WAIT_S = 0.2
# SQLite's own limit for a value, less what the rest of a row takes.
MAX_VECTOR_BYTES = 999_000_000
_ABSENT = object()
# Key of the record that is about all items, and is not one of them.
SHARED = "common"


@dataclass(frozen=True, eq=False)
class JournalResult:
    """The vector or the error of one key.

    Attributes
    ----------
    key : str
        The key under which it was added.
    vector : numpy.ndarray or None
        ``(D,)`` float32; None where it failed.
    meta : dict or None
        Provenance, JSON values.
    error : str or None
        Why there is no vector; None where there is one.
    """

    key: str
    vector: NDArray[np.float32] | None
    meta: Mapping[str, Any] | None = None
    error: str | None = None


class Journal:
    """Results of a run, each on disk before the next is begun.

    A context manager, used by the thread that opened it. Every `add` is a transaction that is
    synced to disk; the process may be killed, or the power fail, at any moment. While it is open,
    no other process can open it.

    Parameters
    ----------
    path : path
        An SQLite file; created if there is none.
    request : str or None
        JSON text of everything that determines the results. A journal is only continued by the
        request that started it. None reads one, whatever its request is.

    Attributes
    ----------
    is_new : bool
        Whether there was none before.

    Raises
    ------
    SpecError
        If ``request`` is not JSON.
    ExportError
        If the file is not a journal, is damaged, belongs to another request, is open elsewhere,
        or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], request: str | None) -> None:
        try:
            requested = None if request is None else json.loads(request)
        except (TypeError, ValueError) as exc:
            raise SpecError(f"got request={request!r:.60}, expected JSON text: {exc}") from exc
        self.path, self.is_new = Path(path), False
        check_place(self.path)
        try:
            check_regular(self.path)
        except OSError as exc:
            raise ExportError(f"cannot keep results in {self.path}: {exc}") from exc
        with self._errors_mapped():
            # Every statement commits.
            self._connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            try:
                self._open(request, requested)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, request: str | None, requested: Any) -> None:
        run = self._connection.execute
        run("PRAGMA synchronous = EXTRA")
        _lock(self._connection)
        if run("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            if request is None:
                raise self.damaged("it is empty")
            self.is_new = True
            for statement in _SCHEMA.split(";"):
                run(statement)
            run("INSERT INTO request VALUES (?)", (request,))
            run(f"PRAGMA application_id = {_APPLICATION_ID}")
        elif run("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
            raise ExportError(
                f"{self.path} is a database that rs_embed did not write; choose another name"
            )
        else:
            self._check(requested)
            run("ROLLBACK")  # of what was written to see whether it can be
            return
        run("COMMIT")

    def _check(self, requested: Any) -> None:
        """Refuse a damaged journal, and one of another request."""
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self.damaged(verdict)
        try:
            (stored,) = self._connection.execute("SELECT json FROM request").fetchone()
            started_with = json.loads(stored)
        except (TypeError, ValueError) as exc:
            raise self.damaged("its request is unreadable") from exc
        differing = "" if requested is None else shown_differences(started_with, requested)
        if differing:
            raise ExportError(
                f"{self.path} was started with another request ({differing}); repeat that request, "
                "choose another name, or start again with overwrite=True (--overwrite)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close and unlock the file; what was added stays."""
        self._connection.close()

    def delete(self) -> None:
        """Close the journal and remove its file."""
        _remove(self.path, self._connection)

    def add(self, *results: JournalResult) -> None:
        """Write results to disk, replacing earlier ones of the same keys.

        If the process ends meanwhile, all or none of them are written.

        Raises
        ------
        SpecError
            If a result has both or neither of ``vector`` and ``error``, or its vector is not
            ``(D,)`` float32.
        ExportError
            If the disk is full or the journal is closed.
        """
        rows = [_row(result) for result in results]
        with self._errors_mapped():
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?)", rows
                )
                self._connection.execute("COMMIT")
            except BaseException:  # Ctrl-C too: what it cuts short must not count as done
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def done(self) -> set[str]:
        """Return the keys that have a vector."""
        with self._errors_mapped():
            rows = self._connection.execute("SELECT key FROM result WHERE error IS NULL")
            return {key for (key,) in rows}

    def keys(self) -> list[str]:
        """Return all keys, in the order in which they were added."""
        with self._errors_mapped():
            rows = self._connection.execute("SELECT key FROM result ORDER BY rowid")
            return [key for (key,) in rows]

    def failed(self) -> dict[str, str]:
        """Return the keys that failed, and why."""
        with self._errors_mapped():
            return dict(
                self._connection.execute("SELECT key, error FROM result WHERE error IS NOT NULL")
            )

    def metas(self, keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each of ``keys`` that has a meta, and its meta; vectors are not read.

        Raises
        ------
        ExportError
            If a meta is unreadable. That it was changed is only noticed by `results`.
        """
        for key in keys:
            with self._errors_mapped():
                row = self._connection.execute(
                    "SELECT meta FROM result WHERE key = ? AND meta IS NOT NULL", (key,)
                ).fetchone()
            if row is not None:
                try:
                    yield key, json.loads(row[0])
                except ValueError as exc:
                    raise self.damaged(f"unreadable meta: {exc}") from exc

    def results(self, keys: Sequence[str]) -> Iterator[JournalResult]:
        """Yield the result of each of ``keys``, in their order, one at a time.

        Raises
        ------
        ExportError
            If nothing was added for a key, or its content is damaged.
        """
        for key in keys:
            with self._errors_mapped():
                row = self._connection.execute(
                    "SELECT error, checksum, meta, vector FROM result WHERE key = ?", (key,)
                ).fetchone()
            if row is None:
                raise ExportError(f"{self.path} has no result for {key!r}; resume the run first")
            error, checksum, text, blob = row
            if checksum != _checksum(key, error, text, blob):
                raise self.damaged(f"wrong checksum of {key!r}")
            vector = None if blob is None else np.frombuffer(blob, "<f4").astype(np.float32)
            yield JournalResult(key, vector, None if text is None else json.loads(text), error)

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        """Raise SQLite's errors as `ExportError`."""
        try:
            yield
        except sqlite3.ProgrammingError as exc:
            raise ExportError(f"cannot use {self.path}: {exc}") from exc
        except sqlite3.Error as exc:
            if _is_used(exc):
                raise _in_use(self.path) from exc
            if _kind(exc) in _UNWRITABLE:
                raise ExportError(f"cannot write {self.path}: {exc}; choose another place") from exc
            raise self.damaged(str(exc)) from exc

    def damaged(self, reason: str) -> ExportError:
        """Return the error for contents that cannot be used."""
        return ExportError(
            f"{self.path} is not a journal of rs_embed, or is damaged ({reason}); choose another "
            "name, or start again with overwrite=True (--overwrite)"
        )


def _row(result: JournalResult) -> tuple[str, str | None, int, str | None, bytes | None]:
    """Return what is stored of a result."""
    key, vector, error = result.key, result.vector, result.error
    if (vector is None) == (error is None):
        given = "neither" if vector is None else "both"
        raise SpecError(f"got {given} of vector and error for {key!r}, expected one")
    if vector is not None and (vector.ndim != 1 or vector.dtype != np.float32):
        raise SpecError(
            f"got {vector.dtype} of shape {vector.shape} for {key!r}, expected float32 (D,)"
        )
    blob = None if vector is None else vector.astype("<f4", copy=False).tobytes()
    text = None if result.meta is None else json.dumps(dict(result.meta))
    return key, error, _checksum(key, error, text, blob), text, blob


def discard(path: Path) -> None:
    """Remove a journal, damaged or not, if there is one; not one that is open elsewhere.

    Raises
    ------
    ExportError
        If it is in use by another process, or cannot be removed.
    """
    if not path.is_file():
        return
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    try:
        _lock(connection)
        if path.stat().st_size == 0:  # somebody may be about to lock it, see `_lock`
            connection.close()
            return
    except sqlite3.Error as exc:
        if _is_used(exc):
            connection.close()
            raise _in_use(path) from exc
    _remove(path, connection)


def _lock(connection: sqlite3.Connection) -> None:
    """Begin a transaction whose lock is kept until the file is closed, or the process ends."""
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # not before: each of two would wait
    # A write, before which SQLite checks that the file it has locked is still the one at its path.
    # It does not check empty files, so these are never removed.
    connection.execute("PRAGMA user_version = 1")


def _remove(path: Path, connection: sqlite3.Connection) -> None:
    """Remove a journal while it is locked, so that it is not one that another process began."""
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        # Else closing it would remove the rollback file of whoever begins the next one.
        connection.execute("PRAGMA journal_mode = OFF")
    if sys.platform == "win32":  # there an open file cannot be removed, by anybody
        connection.close()
    try:
        # SQLite's own rollback file first: without its database it means nothing.
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ExportError(f"cannot delete {path}: {exc}; delete it by hand") from exc
    finally:
        connection.close()


def _is_used(exc: sqlite3.Error) -> bool:
    """Return whether another process holds a journal, or has just removed it."""
    moved = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED
    return moved or _kind(exc) == sqlite3.SQLITE_BUSY


def _kind(exc: sqlite3.Error) -> int:
    """Return the kind of an error: the low byte of its code; the others are its variant."""
    code: int = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF


def _in_use(path: Path) -> ExportError:
    return ExportError(
        f"{path} is in use by another process; wait for it, end it, or choose another name"
    )


def _checksum(*parts: str | bytes | None) -> int:
    """Return the CRC-32 of a row: SQLite detects a damaged page, but not a damaged value."""
    total = 0
    for part in parts:
        total = zlib.crc32(part.encode() if isinstance(part, str) else part or b"", total)
    return total


def shown_differences(before: Any, now: Any) -> str:
    """Return in what two requests, JSON values, differ; empty if they are the same."""
    return some(list(_differences(before, now)), _MOST_DIFFERENCES, "; ")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield each value in which two requests differ, by its dotted name."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*now, *before)):  # in the order of the request
            inner = f"{name}.{key}" if name else key
            yield from _differences(before.get(key, _ABSENT), now.get(key, _ABSENT), inner)
    elif before != now:
        yield f"{name or 'request'} was {_shown(before)}, is now {_shown(now)}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
