"""What a run has kept, also as objects on a store, so that any machine can continue the run.

``<output>.partial/`` holds ``request.json``, and an object for what was kept in a few seconds. Its
name is ``<number>-<SHA-256 of its content>``; its content is one line of JSON (the SHA-256 of the
request, what the items share, and each item but its vector), then the vectors as float32, little
endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from rs_embed.embedding.identity import which_weights
from rs_embed.errors import ExportError
from rs_embed.files.writing import files_of
from rs_embed.network.stores import Store
from rs_embed.runs.journal import SHARED, Journal, JournalResult

# What may be beside an output: model card, STAC Item, and what GDAL reads with a GeoTIFF.
BESIDE = (".md", ".json", ".aux.xml", ".ovr", ".msk")
_REQUEST = "request.json"
_OBJECT = re.compile(r"(?P<number>\d{8})-(?P<sha256>[0-9a-f]{64})")
# A place takes milliseconds, writing an object a tenth of a second.
_PUT_EVERY_S = 5.0
_PENDING_BYTES = 64 * 2**20


class Mirror:
    """The objects of a run on a store.

    Parameters
    ----------
    store : Store
        The output. All methods raise `ExportError` if it cannot be read or written.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._files = store, store.files
        self._folder = f"{store.root}.partial"
        self._request = ""
        self._shared: Mapping[str, Any] | None = None
        self._pending: list[JournalResult] = []
        self._bytes = self._number = 0
        self._put_at = -math.inf

    def fetch(self, path: Path, partial: Path, *, overwrite: bool) -> None:
        """Download the output, what is beside it, and what a run has kept unless it ``overwrites``.

        Of a folder only the files in the folder itself, which say what it is.
        """
        store = self._store
        if not overwrite:
            self._fetch_kept(partial)
        with store.errors("read"):
            for suffix in BESIDE:
                if store.kind(suffix) == "file":
                    self._files.get_file(store.root + suffix, f"{path}{suffix}")
            kind = store.kind()
            if kind == "file":
                self._files.get_file(store.root, str(path))
            elif kind == "directory":
                inside = [name for name in self._inside() if "/" not in name]
                if inside or not self._objects():  # else a run was ended while it wrote this folder
                    path.mkdir()
                for name in inside:
                    self._files.get_file(f"{store.root}/{name}", str(path / name))

    def _fetch_kept(self, partial: Path) -> None:
        """Make the journal of a run from its objects, if there are any."""
        with self._store.errors("read"):
            names = self._objects()
            if not names or not self._store.kind(f".partial/{_REQUEST}"):
                return
            request = self._files.cat_file(f"{self._folder}/{_REQUEST}")
            try:
                self._request = json.dumps(json.loads(request))
            except ValueError as exc:
                raise self._refused(_REQUEST, f"is damaged ({exc})") from exc
            contents = self._store.each(
                lambda name: self._files.cat_file(f"{self._folder}/{name}"), names
            )
            with closing(contents), Journal(partial, self._request) as journal:
                for name, content in zip(names, contents, strict=True):
                    journal.add(*self._unpacked(name, content))
        self._number = 1 + max(int(name[:8]) for name in names)

    def begin(self, request: str, *, anew: bool) -> None:
        """Write the request; ``anew`` removes what was kept before."""
        with self._store.errors("write"):
            if anew:
                self._remove()
                self._request, self._number = request, 0
            self._put(_REQUEST, self._request.encode())

    def keep(self, results: Sequence[JournalResult], shared: Mapping[str, Any] | None) -> None:
        """Write results, at the latest with those of the next few seconds; all of them or none."""
        self._shared = shared
        self._pending.extend(results)
        self._bytes += sum(one.vector.nbytes for one in results if one.vector is not None)
        if self._bytes > _PENDING_BYTES or time.monotonic() - self._put_at > _PUT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write the results that are not yet written."""
        if self._pending:
            content = self._packed()
            with self._store.errors("write"):
                self._put(f"{self._number:08}-{_sha256(content)}", content)
            self._pending, self._bytes = [], 0
            self._number += 1
            self._put_at = time.monotonic()

    def publish(self, path: Path) -> None:
        """Write the finished output, and before it what is beside it."""
        store, files = self._store, self._files

        def put(name: str) -> None:
            target = f"{store.root}/{name}"
            self._written(target, lambda: files.put_file(str(path / name), target))

        self.publish_beside(path)
        with store.errors("write"):
            if not path.is_dir():
                files.put_file(str(path), store.root)
                return
            # What says that it is a map is in the folder itself: removed first, written last.
            old = sorted(self._inside() if store.kind() else [], key=lambda name: "/" in name)
            for name in old:
                files.rm_file(f"{store.root}/{name}")
            new = [file.relative_to(path).as_posix() for file in files_of(path)]
            for within in (True, False):
                list(store.each(put, [name for name in new if ("/" in name) is within]))

    def publish_beside(self, path: Path) -> None:
        """Write what is beside the output, and remove what is not."""
        store, files = self._store, self._files
        with store.errors("write"):
            for suffix in BESIDE:
                beside = path.with_name(path.name + suffix)
                if beside.exists():
                    files.put_file(str(beside), store.root + suffix)
                elif store.kind(suffix) == "file":
                    files.rm_file(store.root + suffix)

    def close(self, *, disposable: bool) -> None:
        """Write what is left; or, if it is ``disposable``, remove all that was kept."""
        if not disposable:
            self.flush()
            return
        with self._store.errors("write"):
            self._remove()

    def tidy(self) -> None:
        """Remove the rest of a run that was ended when its output was finished."""
        with self._store.errors("write"):
            if self._store.kind(f".partial/{_REQUEST}") is None:
                self._remove()

    def size_bytes(self) -> int:
        """Return the size of the output."""
        with self._store.errors("read"):
            return int(self._files.du(self._store.root))

    def _objects(self) -> list[str]:
        """Return the names of the objects, in order."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._folder, detail=False)
        except FileNotFoundError:
            return []
        names = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if _OBJECT.fullmatch(name))

    def _remove(self) -> None:
        names = self._objects()

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):  # another driver was faster
                self._files.rm_file(f"{self._folder}/{name}")

        remove(_REQUEST)  # without it the others are of no run
        list(self._store.each(remove, names))

    def _put(self, name: str, content: bytes) -> None:
        path = f"{self._folder}/{name}"
        self._written(path, lambda: self._files.pipe_file(path, content))

    def _written(self, path: str, write: Callable[[], None]) -> None:
        """Write a file, in folders that are made if the file system has some, but in no bucket."""
        try:
            write()
        except FileNotFoundError:
            folder, _, _ = self._store.root.rpartition("/")
            for part in path[len(folder) + 1 :].split("/")[:-1]:
                folder = f"{folder}/{part}"
                with suppress(FileExistsError):
                    self._files.mkdir(folder, create_parents=False)
            write()

    def _inside(self) -> list[str]:
        """Return the names of the files in a folder."""
        start = len(self._store.root) + 1
        return [path[start:] for path in self._files.find(self._store.root) if path[start:]]

    def _packed(self) -> bytes:
        """Return the content of an object."""
        rows: list[list[Any]] = []
        values: list[bytes] = []
        for one in self._pending:
            size = None if one.vector is None else one.vector.size
            meta = None if one.meta is None else dict(one.meta)
            rows.append([one.key, one.error, meta, size])
            values += [] if one.vector is None else [one.vector.astype("<f4").tobytes()]
        about = {"request": _sha256(self._request.encode()), "shared": self._shared}
        return b"".join([json.dumps({**about, "results": rows}).encode(), b"\n", *values])

    def _unpacked(self, name: str, content: bytes) -> Iterator[JournalResult]:
        """Yield the results in an object, and what they share."""
        if not name.endswith(_sha256(content)):
            raise self._refused(name, "is damaged (its SHA-256 is not the one in its name)")
        about, _, values = content.partition(b"\n")
        try:
            stated = json.loads(about)
            if stated["request"] != _sha256(self._request.encode()):
                raise self._refused(name, "belongs to another request than request.json")
            shared, vectors, start = stated["shared"], np.frombuffer(values, "<f4"), 0
            if shared is not None:
                before = self._shared or shared
                if which_weights(before) != which_weights(shared):
                    raise self._refused(name, "was made with other weights than those before it")
                self._shared = before
                yield JournalResult(SHARED, np.zeros(0, np.float32), before)
            for key, error, meta, size in stated["results"]:
                vector = None if size is None else vectors[start : start + size].astype(np.float32)
                start += size or 0
                yield JournalResult(key, vector, meta, error)
        except (LookupError, TypeError, ValueError) as exc:
            raise self._refused(name, f"is not an object of rs_embed ({exc})") from exc

    def _refused(self, name: str, why: str) -> ExportError:
        return ExportError(
            f"{self._store.url}.partial/{name} {why}; delete this object, to make its results "
            "again, or start again with overwrite=True (--overwrite)"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
