"""Sets of images, labelled or not: archives with an index, folders of classes, single images."""

from __future__ import annotations

import csv
import io
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from rs_embed.addresses import check_regular, path_of
from rs_embed.datasets.pictures import SUFFIXES, TooLittleValid, read_picture
from rs_embed.errors import (
    DatasetError,
    ImageryWarning,
    Note,
    UnknownNameError,
    give_warnings,
    some,
)
from rs_embed.specs import check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("train", "val")
INDEX = "index.csv"
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
# Of one member of an archive, of an index, and of a line in it or a name in a tar archive.
IMAGE_BYTES, INDEX_BYTES, LINE_BYTES = 256 * 2**20, 128 * 2**20, 64 * 2**10
INDEX_LINES = 2_000_000
# Decompressed by bzip2 or LZMA, which know no limit, this becomes 80 MB at most.
_PIECE = 4096
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError,
    RuntimeError, struct.error,
)  # fmt: skip
_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a set.

    Attributes
    ----------
    name : str
        Its path inside the set, unique there.
    image : numpy.ndarray
        ``(height, width, 3)`` uint8: red, green, blue as displayed.
    gsd_m : float
        Ground metres per pixel.
    label : str or None
        Name of its class, None if it has none.
    split : str or None
        ``"train"``, ``"val"``, or None where the set states none and none was requested.
    assumed_split : str or None
        The split by `held_out`, over the whole set; None where the set states a split of any
        image, or lacks a label.
    """

    name: str
    image: NDArray[np.uint8]
    gsd_m: float
    label: str | None
    split: str | None
    assumed_split: str | None = None


@dataclass(frozen=True)
class _Entry:
    """What is known of an image before it is read."""

    name: str
    label: str | None
    split: str | None
    assumed_split: str | None = None


_Wanted = Callable[[_Entry], bool]
_Found = Iterator[tuple[_Entry, Path | bytes]]


def read_samples(
    source: str | os.PathLike[str], *, gsd_m: float | None = None, split: str | None = None
) -> Iterator[Sample]:
    """Return an iterator over the images of a set, each read when it is requested.

    Parameters
    ----------
    source : path
        An archive (``.tar``, ``.tar.gz``, ``.tar.xz``, ``.zip``) or a folder with an ``index.csv``
        of ``path``, ``class`` (else ``label``) and perhaps ``split``, paths relative to it; in
        ``.tar`` archives it comes first. Or a folder whose folders are the classes, perhaps within
        ``train`` and ``val``; images directly inside have no label. Or one image.
    gsd_m : float, optional
        Ground metres per pixel; needed where images have no georeference.
    split : {"train", "val"}, optional
        Only the images of that split; by `held_out` where the set states none.

    Yields
    ------
    Sample
        In the order of the archive, or of the names in a folder. Images less than half of which
        is valid and files that are not images are left out with an `ImageryWarning` at the end.

    Raises
    ------
    DatasetError
        If the set does not exist, has no images, or lacks one that its index lists; if an image
        cannot be read or has unknown metres; if ``split`` is requested of a set that states none.
        Errors of an image are raised when its turn comes.
    SpecError
        If ``gsd_m`` is not above 0, or ``split`` is not one of these.

    Notes
    -----
    Archives are read front to back and never unpacked; links in them are not followed, and neither
    are paths of an index that lead outside.
    """
    if gsd_m is not None:
        check_positive("gsd_m", gsd_m, "ground metres per pixel")
    if split is not None and split not in SPLITS:
        raise UnknownNameError.among("split", split, SPLITS)
    path = path_of(source).expanduser()
    if not path.exists():
        raise DatasetError(f"{str(path)!r} is missing, expected a folder, an archive or an image")
    try:
        for file in (path, path / INDEX):
            check_regular(file)
    except OSError as exc:
        raise DatasetError(f"{str(path)!r} cannot be read: {exc}") from exc
    return _samples(path, gsd_m, split)


def _samples(path: Path, gsd_m: float | None, split: str | None) -> Iterator[Sample]:
    no_images: list[str] = []
    invalid: list[str] = []
    seen = found = 0

    def wanted(entry: _Entry) -> bool:
        nonlocal seen
        seen += 1
        if split is not None and entry.split is None and entry.assumed_split is None:
            raise DatasetError(
                f"got split={split!r}, but {str(path)!r} does not state the split of "
                f"{entry.name!r}; leave split out, add the column split to its {INDEX}, or put its "
                "classes into train/ and val/"
            )
        return split in (None, entry.split or entry.assumed_split)

    for entry, content in _found(path, wanted, no_images):
        try:
            image, metres = read_picture(content, entry.name, gsd_m)
        except TooLittleValid:
            if content == path:
                raise
            invalid.append(entry.name)
            continue
        found += 1
        stated = entry.split or split
        yield Sample(entry.name, image, metres, entry.label, stated, entry.assumed_split)
    left_out = ((no_images, "not images of the set"), (invalid, "less than half valid"))
    give_warnings(
        Note(f"left out of {str(path)!r} ({why}): {some(names)}", ImageryWarning)
        for names, why in left_out
        if names
    )
    if not found:
        of_split = f" of the split {split!r} among {seen} images" if seen and split else ""
        raise DatasetError(
            f"{str(path)!r} contains no image{of_split}, expected files that end in "
            f"{', '.join(SUFFIXES)}"
        )


def _found(path: Path, wanted: _Wanted, no_images: list[str]) -> _Found:
    """Yield the wanted images with their contents, and add other files to ``no_images``."""
    if path.is_dir():
        index = path / INDEX
        if index.is_file():
            with index.open("rb") as file:
                entries = _read_index(file, str(index))
            return _indexed_folder(path, entries, wanted, no_images)
        return _folder(path, wanted, no_images)
    name = path.name.lower()
    if name.endswith(_TARS):
        return _tar(path, wanted, no_images)
    if name.endswith(".zip"):
        return _zip(path, wanted, no_images)
    entry = _Entry(path.name, None, None)
    return iter([(entry, path)] if wanted(entry) else [])


def _lines(file: IO[bytes], shown: str) -> Iterator[str]:
    """Yield the lines of an index, of bounded length and number."""
    size = lines = 0
    while line := file.readline(LINE_BYTES + 1):
        size, lines = size + len(line), lines + 1
        if len(line) > LINE_BYTES or size > INDEX_BYTES or lines > INDEX_LINES:
            raise DatasetError(
                f"{shown!r} has more than {INDEX_BYTES:,} bytes, {INDEX_LINES:,} lines or "
                f"{LINE_BYTES:,} bytes in a line, expected a line for each image; split the set"
            )
        yield line.decode("utf-8-sig" if lines == 1 else "utf-8")


def _read_index(file: IO[bytes], shown: str) -> dict[str, _Entry]:
    """Return the entries of an index by their paths."""
    try:
        return _entries(csv.DictReader(_lines(file, shown)), shown)
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"{shown!r} cannot be read as CSV in UTF-8: {exc}") from exc


def _entries(rows: csv.DictReader[str], shown: str) -> dict[str, _Entry]:
    labels = "class" if "class" in (rows.fieldnames or ()) else "label"
    entries: dict[str, _Entry] = {}
    for line, row in enumerate(rows, 2):
        path = PurePosixPath(row.get("path") or "")
        if not path.name:
            raise DatasetError(
                f"line {line} of {shown!r} has no path, expected the column path and perhaps "
                f"class, label, split; got {', '.join(str(key) for key in row)}"
            )
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"line {line} of {shown!r} leads outside the set: {str(path)!r}")
        if str(path) in entries:
            raise DatasetError(f"{shown!r} lists {str(path)!r} twice (line {line})")
        split = row.get("split") or None
        if split is not None and split not in SPLITS:
            raise DatasetError(
                f"line {line} of {shown!r} has split={split!r}, expected {' or '.join(SPLITS)}"
            )
        entries[str(path)] = _Entry(str(path), row.get(labels) or None, split)
    if not entries:
        raise DatasetError(f"{shown!r} lists no images, expected a line for each")
    return {entry.name: entry for entry in _with_assumed(list(entries.values()))}


def _with_assumed(entries: list[_Entry]) -> list[_Entry]:
    if any(entry.split is not None or entry.label is None for entry in entries):
        return entries
    val = held_out((entry.name, entry.name, entry.label or "") for entry in entries)
    return [replace(e, assumed_split="val" if e.name in val else "train") for e in entries]


def held_out(images: Iterable[tuple[Hashable, str, str]]) -> set[Hashable]:
    """Return the keys of the images that are val in a set that states no split.

    They are the last fifth of each class in natural order (``forest_9`` before ``forest_10``):
    crops of one photograph mostly have neighbouring numbers, and a random choice would part them.

    Parameters
    ----------
    images : iterable of (hashable, str, str)
        Key, name and label of each image.
    """
    classes: dict[str, list[Hashable]] = {}
    for key, _, label in sorted(images, key=lambda image: in_order(image[1])):
        classes.setdefault(label, []).append(key)
    return {key for keys in classes.values() for key in keys[-max(1, round(len(keys) / 5)) :]}


def in_order(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts ``forest_9`` before ``forest_10``, and no two names as equal."""
    # Text and numbers alternate, so that only like is compared with like.
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _missing(names: list[str], shown: str) -> DatasetError:
    return DatasetError(
        f"the {INDEX} of {shown!r} lists {len(names)} files that are not in it: {some(names)}; "
        "correct the index, or add the files"
    )


def _indexed_folder(
    root: Path, entries: dict[str, _Entry], wanted: _Wanted, no_images: list[str]
) -> _Found:
    inside, files = root.resolve(), {name: root / name for name in entries}
    absent = [
        name
        for name, file in files.items()
        if not file.is_file() or not file.resolve().is_relative_to(inside)
    ]
    if absent:
        raise _missing(absent, str(root))
    no_images += [name for name in _files(root) if name not in entries and name != INDEX]
    yield from ((entry, files[name]) for name, entry in entries.items() if wanted(entry))


def _files(root: Path) -> list[str]:
    """Return the paths of all but hidden files, sorted; linked folders are not followed."""

    def refuse(exc: OSError) -> None:
        raise DatasetError(f"{str(root)!r} cannot be read: {exc}") from exc

    names = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        below = Path(folder).relative_to(root)
        files = [name for name in files if not name.startswith(".")]
        names += [(below / name).as_posix() for name in (*files, *linked)]
    return sorted(names)


def _folder(root: Path, wanted: _Wanted, no_images: list[str]) -> _Found:
    names = _files(root)
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    splits = _folder_splits(root, images)
    entries = _with_assumed([_folder_entry(name, splits) for name in images])
    inside = {entry.name: entry for entry in entries if not splits or entry.split is not None}
    no_images += [name for name in names if name not in inside]
    yield from ((entry, root / name) for name, entry in inside.items() if wanted(entry))


def _folder_splits(root: Path, images: list[str]) -> bool:
    """Return whether the folders of a set are its splits."""
    tops = {PurePosixPath(name).parts[0] for name in images if "/" in name}
    others = tops & {"test", "valid", "validation"}
    if "train" in tops and "val" not in tops and others:
        raise DatasetError(
            f"{str(root)!r} has the folders {', '.join(sorted(tops))}, expected train and val; "
            f"rename {min(others)} to val"
        )
    return set(SPLITS) <= tops


def _folder_entry(name: str, splits: bool) -> _Entry:
    folders = PurePosixPath(name).parent.parts
    if not splits:
        return _Entry(name, "/".join(folders) or None, None)
    if not folders or folders[0] not in SPLITS:
        return _Entry(name, None, None)
    return _Entry(name, "/".join(folders[1:]) or None, folders[0])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn failures of an archive into ours."""
    try:
        yield
    except DatasetError:
        raise
    except _BROKEN as exc:
        raise DatasetError(
            f"{str(path)!r} cannot be read as an archive ({exc}); it may be truncated or "
            "encrypted: copy it again, or pack it anew"
        ) from exc


def _tar(path: Path, wanted: _Wanted, no_images: list[str]) -> _Found:
    members = _tar_members(path)
    first = next(members, None)
    if first is None or PurePosixPath(first[0]).name != INDEX:
        raise DatasetError(
            f"{str(path)!r} begins with {first[0] if first else 'nothing'!r}, expected {INDEX}; "
            f"pack it again: tar -cJf set.tar.xz {INDEX} FOLDERS"
        )
    base = PurePosixPath(first[0]).parent
    with _readable(path), first[1]() as file:
        entries = _read_index(file, f"{path}/{first[0]}")
    given = set()
    for member, read in members:
        name = _inside(member, base)
        if name in given:
            raise DatasetError(f"{str(path)!r} contains {name!r} twice; pack it again")
        if name is None or name not in entries:
            no_images.append(name or member)
            continue
        given.add(name)
        if wanted(entries[name]):
            yield entries[name], _image(read, name, path)
    absent = [name for name in entries if name not in given]
    if absent:
        raise _missing(absent, str(path))


def _inside(member: str, base: PurePosixPath) -> str | None:
    """Return a member's path relative to the folder of the index, None if it is not inside."""
    path = PurePosixPath(member)
    return str(path.relative_to(base)) if path.is_relative_to(base) else None


class _Header(tarfile.TarInfo):
    """A header of a tar archive; those that state a long name are read whole by tarfile."""

    @classmethod
    def frombuf(cls, *args: Any) -> Self:
        header = super().frombuf(*args)
        if header.type in _LONG_HEADERS and header.size > LINE_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            cls._refuse_sparse()
        return header

    @classmethod
    def _refuse_sparse(cls, *_: Any) -> None:
        """Refuse a sparse file: tarfile would read its map, however long."""
        raise tarfile.ReadError("a sparse file, expected whole files; pack it without --sparse")

    # As tarfile calls what reads the three formats of PAX.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Yield the name of each file, and a function that opens it; links and devices are skipped."""
    with _readable(path):
        archive = tarfile.open(path, "r|*", bufsize=_PIECE, tarinfo=_Header)  # noqa: SIM115
    with archive:
        while True:
            with _readable(path):
                member = archive.next()
            if member is None:
                return
            # tarfile remembers every header otherwise.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg():
                yield member.name, partial(_opened, archive, member)


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return archive.extractfile(member) or io.BytesIO()


def _image(opened: Callable[[], IO[bytes]], name: str, path: Path) -> bytes:
    """Return the content of a member; the limit holds for what comes out, whatever is stated."""
    content = io.BytesIO()
    with _readable(path), opened() as file:
        while piece := file.read(_PIECE):
            content.write(piece)
            if content.tell() > IMAGE_BYTES:
                raise DatasetError(
                    f"{name!r} in {str(path)!r} is larger than {IMAGE_BYTES:,} bytes, the most "
                    "that is read from an archive; unpack it, and name the folder"
                )
    return content.getvalue()


def _zip(path: Path, wanted: _Wanted, no_images: list[str]) -> _Found:
    with _readable(path):
        archive = zipfile.ZipFile(path)
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        members = {info.filename: info for info in infos}
        if len(members) < len(infos):
            raise DatasetError(f"{str(path)!r} contains a name twice; pack it again")
        indexes = [name for name in members if PurePosixPath(name).name == INDEX]
        if not indexes:
            raise DatasetError(f"{str(path)!r} has no {INDEX}, expected one with path and class")
        base = PurePosixPath(min(indexes, key=len)).parent
        with _readable(path), archive.open(members[str(base / INDEX)]) as file:
            entries = _read_index(file, str(path))
        named = {name: _inside(name, base) for name in members}
        no_images += [name for name, inner in named.items() if inner is None]
        files = {inner: members[name] for name, inner in named.items() if inner is not None}
        absent = [name for name in entries if name not in files]
        if absent:
            raise _missing(absent, str(path))
        no_images += [name for name in files if name not in entries and name != INDEX]
        for name in sorted(entries, key=lambda name: files[name].header_offset):
            if wanted(entries[name]):
                yield entries[name], _image(partial(archive.open, files[name]), name, path)
