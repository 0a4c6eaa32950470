"""Find weights by name: local paths first, then the cache of the Hugging Face hub, then the hub.

This module does not open the weights; :mod:`rs_embed.models.scalemae.checkpoint` does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rs_embed.addresses import check_regular, path_of, read_document
from rs_embed.errors import CheckpointError, did_you_mean
from rs_embed.models.records import Records
from rs_embed.network.stores import is_store
from rs_embed.printable import excerpt

CONFIG_NAME = "config.json"
WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
# Folders of weights that are part of the package.
SHIPPED = {"scalemae-tiny": Path(__file__).parents[1] / "data" / "scalemae-tiny"}
# Within which the hub must answer, seconds.
_ANSWER_S = 4
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_CHECK_ID = (
    "check the id; if it is private, run: hf auth login; if it is a path, there is no such folder"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightsFile:
    """Weights on disk.

    Attributes
    ----------
    id : str
        The requested name: a hub id or a path.
    path : pathlib.Path
        The file.
    config : mapping
        Content of the ``config.json`` next to it; empty if there is none.
    revision : str or None
        Commit of the hub repository; None for local files.
    """

    id: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None

    @property
    def announced_sha256(self) -> str | None:
        """The hash by which the cache of the hub names the file; None for other files."""
        name = self.path.resolve().name
        return name if self.revision is not None and _SHA256.fullmatch(name) else None


def obtain_weights(name: str) -> WeightsFile:
    """Return the weights with the given name, from disk if possible, otherwise from the hub.

    Parameters
    ----------
    name : str
        A name of `SHIPPED`, a folder, a file, or a hub id ``owner/name`` with an optional
        ``@revision``. Files on disk take precedence over the hub, and the hub's cache is used
        without network access. ``./name`` is a folder even if ``name`` is in `SHIPPED`.

    Raises
    ------
    CheckpointError
        If the path does not exist or contains no weights, or the download fails.
    """
    return weights_on_disk(name) or _downloaded(name, *_repository(name))


def weights_on_disk(name: str) -> WeightsFile | None:
    """Return the weights with the given name if they are on disk, None if they may be elsewhere.

    Raises
    ------
    CheckpointError
        If ``name`` is neither an existing path with weights nor a valid hub id.
    """
    if name in SHIPPED:
        return _described(name, _weights_in(SHIPPED[name]))
    if is_store(name):
        return None
    try:
        local = path_of(name).expanduser()
        for path in (local, *(local / inner for inner in WEIGHTS_NAMES)):
            check_regular(path)
        is_dir, is_file = local.is_dir(), local.is_file()
    except (OSError, RuntimeError, ValueError) as exc:
        raise CheckpointError(f"got weights={name[:200]!r}, not a valid path: {exc}") from exc
    if is_dir:
        return _described(name, _weights_in(local))
    if is_file:
        return _described(name, local)
    return _cached(name, *_repository(name))


def where_weights_are(name: str) -> tuple[str | None, bool]:
    """Return where weights are, and whether that is this disk; None if they have no file."""
    try:
        found = weights_on_disk(name)
        if found is not None:
            return str(found.path), True
        return name if is_store(name) else f"https://huggingface.co/{_repository(name)[0]}", False
    except CheckpointError:
        return None, False


def is_remote_or_shipped(name: str, folder: Path) -> bool:
    """Return whether ``name``, read from a file in ``folder``, is a hub id, a URL or in `SHIPPED`.

    Paths that exist in the folder take precedence over the hub, as in `obtain_weights`.
    """
    if name in SHIPPED or is_store(name):
        return True
    repo = name.partition("@")[0]
    return _is_hub_id(repo) and not (folder / name).exists()


def _is_hub_id(repo: str) -> bool:
    is_path = repo.startswith(".") or repo.endswith(_SUFFIXES)
    return _HUB_ID.fullmatch(repo) is not None and not is_path


def _repository(name: str) -> tuple[str, str | None]:
    """Return the hub id and the revision."""
    repo, _, revision = name.partition("@")
    if not _is_hub_id(repo):
        raise CheckpointError(
            f"got weights={name!r}, but there is no such folder or file "
            f"({os.path.abspath(os.path.expanduser(name))}); expected one, with weights "
            f"({', '.join(_SUFFIXES)}), or a Hugging Face id such as "
            f"'MVRL/scalemae-vitlarge-800'{did_you_mean(name, SHIPPED)}"
        )
    return repo, revision or None


def _described(name: str, path: Path, revision: str | None = None) -> WeightsFile:
    config_path = path.parent / CONFIG_NAME
    try:
        check_regular(path)
        config = json.loads(read_document(config_path))
    except FileNotFoundError:
        return WeightsFile(name, path, {}, revision)
    except OSError as exc:
        raise CheckpointError(f"cannot read the weights {name!r}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{config_path} is not valid JSON ({exc}); fix or remove it") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{config_path} has a {type(config).__name__}, expected an object")
    return WeightsFile(name, path, config, revision)


def _weights_in(folder: Path) -> Path:
    return folder / chosen_weights([path.name for path in folder.iterdir()], str(folder))


def chosen_weights(names: Iterable[str], folder: str) -> str:
    """Return the name of the weights among those of the files in a folder.

    Raises
    ------
    CheckpointError
        If none of them is, or it is not clear which.
    """
    files = sorted(name for name in names if name.endswith(_SUFFIXES))
    files = next(([name] for name in WEIGHTS_NAMES if name in files), files)
    if len(files) != 1:
        listed = ", ".join(files) or "none"
        raise CheckpointError(
            f"got the folder {folder!r}, expected {' or '.join(WEIGHTS_NAMES)}, or exactly "
            f"one file of {', '.join(_SUFFIXES)} in it; found {listed}; pass the path of the file"
        )
    return files[0]


def _cached(name: str, repo: str, revision: str | None) -> WeightsFile | None:
    from huggingface_hub import try_to_load_from_cache

    for filename in WEIGHTS_NAMES:
        with _hub_errors(name):
            path = try_to_load_from_cache(repo, filename, revision=revision)
        if isinstance(path, str):
            return _described(name, Path(path), Path(path).parent.name)
    return None


def _downloaded(name: str, repo: str, revision: str | None) -> WeightsFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    # Its downloads wait for minutes, and tell their retries line by line, if nothing answers.
    with suppress(EntryNotFoundError), _hub_errors(name):
        get_hf_file_metadata(hf_hub_url(repo, "config.json", revision=revision), timeout=_ANSWER_S)
    # The small file first: a missing repository is an error before gigabytes are downloaded.
    for filename in ("config.json", *WEIGHTS_NAMES):
        try:
            with _hub_errors(name), _quiet_client():
                path = Path(hf_hub_download(repo, filename, revision=revision))
        except EntryNotFoundError:
            continue
        if filename in WEIGHTS_NAMES:
            _check_download(path)
            return _described(name, path, path.parent.name)
    raise CheckpointError(
        f"the Hugging Face repository {repo!r} has none of {', '.join(WEIGHTS_NAMES)}; download "
        "its weights yourself and pass their path as weights="
    )


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client from logging each of its retries, unless its user wants to know more."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    if level == logging.WARNING:
        client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Convert the errors of the hub client, except that a file does not exist."""
    from huggingface_hub import errors

    # Base class of transport errors: of httpx or requests, depending on the client's version.
    transport: type[Exception] = getattr(errors, "HTTPError", OSError)
    failures = (errors.HfHubHTTPError, errors.HFValidationError, transport, OSError)
    try:
        yield
    except errors.GatedRepoError as exc:
        raise _unavailable(repo, exc, "accept its terms on the hub and run: hf auth login") from exc
    except errors.RepositoryNotFoundError as exc:
        raise _unavailable(repo, exc, _CHECK_ID) from exc
    except errors.RevisionNotFoundError as exc:
        raise _unavailable(repo, exc, "check the revision after the @") from exc
    except failures as exc:
        local = isinstance(exc, errors.LocalEntryNotFoundError)
        if isinstance(exc, errors.EntryNotFoundError) and not local:
            raise
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            fix = "check free space and permissions of the hub's cache folder (HF_HOME)"
            raise _unavailable(repo, exc, fix) from exc
        fix = (
            "they are not in the local cache; connect to the internet once, pass a local folder or "
            "file as weights=, or use the small weights of this package: weights='scalemae-tiny'"
        )
        raise _unavailable(repo, exc, fix) from exc


def _unavailable(repo: str, exc: BaseException, fix: str) -> CheckpointError:
    root = exc
    while root.__cause__ is not None:
        root = root.__cause__
    reason = excerpt(next(iter(str(root).splitlines()), type(root).__name__), 500)
    return CheckpointError(f"cannot get the weights {repo!r} from the hub ({reason}): {fix}")


def _check_download(path: Path) -> None:
    """Compare a download with the hash published by the hub, which names the file in its cache."""
    announced = path.resolve().name
    if _SHA256.fullmatch(announced) and (found := _sha256(path)) != announced:
        path.resolve().unlink()
        raise CheckpointError(
            f"the download of {path.name} is damaged: SHA-256 {found}, expected {announced}; it "
            "was removed: run the same command again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileDigest:
    """SHA-256 of a file, computed in a thread and stored for later processes.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    record : pathlib.Path
        JSON file of known hashes, by path, size and modification time.
    announced : str or None
        The hash, if it is already known.
    """

    def __init__(self, path: Path, record: Path, announced: str | None = None) -> None:
        self._path = path.resolve()
        self._record = Records(record)
        stat = self._path.stat()
        self._key = f"{self._path}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
        self._thread: threading.Thread | None = None
        known = announced or self._recorded()
        self._value: str | None = known
        self._failure: OSError | None = None
        if known is None:
            self._thread = threading.Thread(target=self._compute, daemon=True, name="sha256")
            self._thread.start()

    def hexdigest(self) -> str:
        """Return the hash, waiting for it if necessary.

        Raises
        ------
        CheckpointError
            If the file could not be read completely.
        """
        if self._thread is not None:
            self._thread.join()
        if self._value is None:
            raise CheckpointError(f"cannot read {self._path}: {self._failure}") from self._failure
        return self._value

    def _compute(self) -> None:
        try:
            self._value = _sha256(self._path)
        except OSError as exc:
            self._failure = exc
        else:
            self._record.put(self._key, self._value)

    def _recorded(self) -> str | None:
        value = self._record.get(self._key)
        return value if isinstance(value, str) and _SHA256.fullmatch(value) else None
