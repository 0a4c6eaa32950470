"""Weights on object stores, downloaded into the cache once for each of their states."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rs_embed.errors import CheckpointError
from rs_embed.models.weights import CONFIG_NAME, chosen_weights
from rs_embed.network.stores import Store

# By which file systems say that an object is another one, next to its size.
_STATE = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created")


@dataclass(frozen=True)
class StoredWeights:
    """The weights at a URL, as they are now.

    Attributes
    ----------
    url : str
        A file, or a folder with weights and their ``config.json``.
    objects : tuple
        Path on the store and bytes of each object that is needed.
    folder : pathlib.Path
        Where they are after the download; another one for each state of the objects.
    """

    url: str
    objects: tuple[tuple[str, int], ...]
    folder: Path

    @classmethod
    def at(cls, url: str, records_dir: Path) -> StoredWeights:
        """Return the weights at a URL; what is there is listed, not downloaded.

        Raises
        ------
        CheckpointError
            If there are none, or the store cannot be read.
        MissingDependencyError
            If the package of its protocol is not installed.
        """
        store = Store.of(url, CheckpointError)
        with store.errors("read the weights"):
            found = _listed(store)
        state = [(info["name"], *(str(info.get(key)) for key in _STATE)) for info in found]
        objects = tuple((str(info["name"]), int(info["size"])) for info in found)
        digest = hashlib.sha256(repr((url, objects, state)).encode()).hexdigest()
        return cls(url, objects, records_dir / "weights" / digest[:32])

    def on_disk(self) -> bool:
        """Return whether they are downloaded."""
        files = {self.folder / _name(path): size for path, size in self.objects}
        return all(file.is_file() and file.stat().st_size == files[file] for file in files)

    def download(self) -> Path:
        """Return ``folder`` with the weights in it.

        Raises
        ------
        CheckpointError
            If they cannot be read, were replaced meanwhile, or cannot be written.
        """
        store, parent = Store.of(self.url, CheckpointError), self.folder.parent
        with store.errors("download the weights"):
            if self.on_disk():
                return self.folder
            parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=parent) as scratch:
                new = Path(scratch) / "weights"
                new.mkdir()
                for path, _ in self.objects:
                    store.files.get_file(path, str(new / _name(path)))
                if StoredWeights.at(self.url, parent.parent) != self:
                    raise CheckpointError(f"{self.url} was replaced meanwhile; try again")
                shutil.rmtree(self.folder, ignore_errors=True)
                try:
                    new.rename(self.folder)
                except OSError:  # another process has finished the same download
                    if not self.on_disk():
                        raise
        return self.folder


def _listed(store: Store) -> list[dict[str, Any]]:
    """Return what is known of the weights and of the config beside them."""
    kind, (folder, _, name) = store.kind(), store.root.rpartition("/")
    if kind is None:
        raise CheckpointError(
            f"got weights={store.url!r}, expected a folder or file; there is none"
        )
    if kind == "directory":
        folder = store.root
        found = [
            info["name"] for info in store.files.ls(folder, detail=True) if info["type"] == "file"
        ]
        name = chosen_weights(map(_name, found), store.url)
    listed = [store.files.info(f"{folder}/{name}")]
    try:
        return [*listed, store.files.info(f"{folder}/{CONFIG_NAME}")]
    except FileNotFoundError:
        return listed


def _name(path: str) -> str:
    return path.rpartition("/")[2]
