"""From the name of weights to a file on disk: local paths, and the Hugging Face hub cache first.

Nothing here opens the weights; :mod:`rs_embed.models.scalemae.checkpoint` does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rs_embed.errors import CheckpointError

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
# Folders of weights that are part of the package.
SHIPPED = {"scalemae-tiny": Path(__file__).parents[1] / "data" / "scalemae-tiny"}
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class WeightsFile:
    """Weights on disk.

    Attributes
    ----------
    id : str
        As they were asked for: hub id or path.
    path : pathlib.Path
        The file.
    config : mapping
        Content of ``config.json`` beside it; empty if there is none.
    revision : str or None
        Commit of the hub repository; None for local files.
    """

    id: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None

    @property
    def announced_sha256(self) -> str | None:
        """The hash by which the hub's cache names the file; None for other files."""
        name = self.path.resolve().name
        return name if self.revision is not None and _SHA256.fullmatch(name) else None


def obtain_weights(name: str) -> WeightsFile:
    """Return the weights of that name, from disk if they are there, else from the hub.

    Parameters
    ----------
    name : str
        A name of `SHIPPED`, a folder, a file, or a hub id ``owner/name`` with an optional
        ``@revision``. What exists on disk is taken before the hub; what is in the hub's cache is
        used without asking the network. ``./name`` is a folder even where ``name`` is shipped.

    Raises
    ------
    CheckpointError
        If the path does not exist or holds no weights, or the download fails.
    """
    return weights_on_disk(name) or _downloaded(name, *_repository(name))


def weights_on_disk(name: str) -> WeightsFile | None:
    """Return the weights of that name if they are on disk, None if only the hub may have them.

    Raises
    ------
    CheckpointError
        If ``name`` is neither an existing path with weights nor a possible hub id.
    """
    if name in SHIPPED:
        return _described(name, _weights_in(SHIPPED[name]))
    try:
        local = Path(name).expanduser()
        is_dir, is_file = local.is_dir(), local.is_file()
    except (OSError, RuntimeError, ValueError) as exc:
        raise CheckpointError(f"got weights={name[:200]!r}, which is no path: {exc}") from exc
    if is_dir:
        return _described(name, _weights_in(local))
    if is_file:
        return _described(name, local)
    return _cached(name, *_repository(name))


def is_remote_or_shipped(name: str, folder: Path) -> bool:
    """Return whether ``name``, stated in a file of ``folder``, is a hub id or a shipped name.

    What exists in the folder is taken before the hub, as `obtain_weights` does.
    """
    if name in SHIPPED:
        return True
    repo = name.partition("@")[0]
    on_hub = _HUB_ID.fullmatch(repo) is not None and not repo.endswith(_SUFFIXES)
    return on_hub and not repo.startswith(".") and not (folder / name).exists()


def _repository(name: str) -> tuple[str, str | None]:
    """Return hub id and revision."""
    repo, _, revision = name.partition("@")
    if not _HUB_ID.fullmatch(repo) or repo.endswith(_SUFFIXES):
        raise CheckpointError(
            f"got weights={name!r}, expected a folder, a file ({', '.join(_SUFFIXES)}) or a "
            "Hugging Face id such as 'MVRL/scalemae-vitlarge-800': no such path, and not an id"
        )
    return repo, revision or None


def _described(name: str, path: Path, revision: str | None = None) -> WeightsFile:
    config_path = path.parent / "config.json"
    if not config_path.is_file():
        return WeightsFile(name, path, {}, revision)
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise CheckpointError(f"{config_path} is not JSON ({exc}); mend or remove it") from exc
    if not isinstance(config, dict):
        raise CheckpointError(f"{config_path} holds a {type(config).__name__}, expected an object")
    return WeightsFile(name, path, config, revision)


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(p for p in folder.iterdir() if p.suffix in _SUFFIXES)
    if len(files) != 1:
        listed = ", ".join(p.name for p in files) or "none"
        raise CheckpointError(
            f"got the folder {str(folder)!r}, expected {' or '.join(WEIGHTS_NAMES)}, or exactly "
            f"one file of {', '.join(_SUFFIXES)} in it; found {listed}; name the file itself"
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
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    # The small file first: a repository that does not exist is found out before gigabytes move.
    for filename in ("config.json", *WEIGHTS_NAMES):
        try:
            with _hub_errors(name):
                path = Path(hf_hub_download(repo, filename, revision=revision))
        except EntryNotFoundError:
            continue
        if filename in WEIGHTS_NAMES:
            _check_download(path)
            return _described(name, path, path.parent.name)
    raise CheckpointError(
        f"the Hugging Face repository {repo!r} has none of {', '.join(WEIGHTS_NAMES)}; download "
        "its weights by hand and pass the path as weights="
    )


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Turn the hub client's failures into ours, except that a file does not exist."""
    from huggingface_hub import errors

    # Root of the transport's own errors, httpx's or requests' by version of the client.
    transport: type[Exception] = getattr(errors, "HTTPError", OSError)
    failures = (errors.HfHubHTTPError, errors.HFValidationError, transport, OSError)
    try:
        yield
    except errors.GatedRepoError as exc:
        raise _unavailable(repo, exc, "accept its terms on the hub and run: hf auth login") from exc
    except errors.RepositoryNotFoundError as exc:
        raise _unavailable(repo, exc, "check the id; if it is private, run: hf auth login") from exc
    except errors.RevisionNotFoundError as exc:
        raise _unavailable(repo, exc, "check what follows the @") from exc
    except failures as exc:
        local = isinstance(exc, errors.LocalEntryNotFoundError)
        if isinstance(exc, errors.EntryNotFoundError) and not local:
            raise
        if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            mend = "make room in, or access to, the hub's cache folder (HF_HOME)"
            raise _unavailable(repo, exc, mend) from exc
        mend = (
            "it is not in the local cache; connect once, or pass a local folder or file as "
            "weights=, or take the small ones that ship: weights='scalemae-tiny'"
        )
        raise _unavailable(repo, exc, mend) from exc


def _unavailable(repo: str, exc: BaseException, mend: str) -> CheckpointError:
    root = exc
    while root.__cause__ is not None:
        root = root.__cause__
    reason = next(iter(str(root).splitlines()), type(root).__name__)
    return CheckpointError(f"cannot get the weights {repo!r} from the hub ({reason}): {mend}")


def _check_download(path: Path) -> None:
    """Compare fresh weights with the hash that the hub announced (its cache names files by it)."""
    announced = path.resolve().name
    if _SHA256.fullmatch(announced) and (found := _sha256(path)) != announced:
        path.resolve().unlink()
        raise CheckpointError(
            f"the download of {path.name} is damaged: SHA-256 {found}, expected {announced}; it "
            "was removed, so run the same command again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileDigest:
    """SHA-256 of a file, computed beside other work and remembered between processes.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    record : pathlib.Path
        JSON file where hashes are kept by path, size and time of change.
    announced : str or None
        The hash where it is known already.
    """

    def __init__(self, path: Path, record: Path, announced: str | None = None) -> None:
        self._path = path.resolve()
        self._record = record
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
        """Return the hash, waiting for it if need be.

        Raises
        ------
        CheckpointError
            If the file could not be read to its end.
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
            self._remember(self._value)

    def _records(self) -> dict[str, str]:
        try:
            records = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return records if isinstance(records, dict) else {}

    def _recorded(self) -> str | None:
        value = self._records().get(self._key)
        return value if isinstance(value, str) and _SHA256.fullmatch(value) else None

    def _remember(self, value: str) -> None:
        """Keep the hash; where that cannot be written it is computed again next time."""
        content = json.dumps({**self._records(), self._key: value}, indent=1)
        partial = self._record.with_name(f"{self._record.name}.{uuid.uuid4().hex}")
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(content, encoding="utf-8")
            partial.replace(self._record)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
