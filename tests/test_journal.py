"""A batch survives being killed: the journal, and the file of many vectors made from it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import textwrap
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rs_embed.errors import ExportError, SpecError
from rs_embed.files.vectors import (
    VectorRow,
    read_vector,
    read_vectors,
    write_vector,
    write_vectors,
)
from rs_embed.runs.journal import Journal, JournalResult
from tests.processes import completed, line_of, running

REQUEST = json.dumps({"image_size": 224, "model": "scalemae", "sensor": {"scale_m": 10}})


def vector(seed: int, size: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batch.journal"


# --- results -------------------------------------------------------------------------------


def test_results_come_back_in_the_order_asked(path: Path) -> None:
    meta = {"model": "scalemae", "nested": {"a": [1, 2.5, None]}, "text": "Ünïcode"}
    with Journal(path, REQUEST) as journal:
        journal.add(JournalResult("a", vector(1), meta))
        journal.add(JournalResult("ß", None, None, "no scene"))
        journal.add(JournalResult("c", vector(3)))
    with Journal(path, REQUEST) as journal:
        assert journal.done() == {"a", "c"}
        c, b, a = journal.results(["c", "ß", "a"])
    assert (a.key, a.meta, a.error) == ("a", meta, None)
    assert a.vector is not None
    assert a.vector.dtype == np.float32
    assert np.array_equal(a.vector, vector(1))
    a.vector[0] = 0  # of its own
    assert (b.key, b.vector, b.meta, b.error) == ("ß", None, None, "no scene")
    assert c.vector is not None
    assert np.array_equal(c.vector, vector(3))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_failed_is_tried_again(path: Path) -> None:
    with Journal(path, REQUEST) as journal:
        journal.add(JournalResult("a", None, None, "time-out"))
        assert journal.done() == set()
        journal.add(JournalResult("a", vector(1)))
        assert journal.done() == {"a"}
        (result,) = journal.results(["a"])
        assert result.error is None
        with pytest.raises(ExportError, match="has no result for 'b'; resume the run"):
            list(journal.results(["a", "b"]))


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (None, None, "got neither of vector and error for 'k'"),
        (vector(1), "why", "got both"),
        (np.ones(3), None, r"got float64 of shape \(3,\) for 'k', expected float32"),
        (np.ones((2, 2), np.float32), None, r"float32 of shape \(2, 2\)"),
    ],
)
def test_what_is_no_result(path: Path, value: Any, error: str | None, match: str) -> None:
    with Journal(path, REQUEST) as journal, pytest.raises(SpecError, match=match):
        journal.add(JournalResult("k", value, None, error))


def test_delete_leaves_nothing(path: Path) -> None:
    with Journal(path, REQUEST) as journal:
        journal.add(JournalResult("a", vector(1)))
        journal.delete()
        assert list(path.parent.iterdir()) == []
        with pytest.raises(ExportError, match="cannot use .*closed"):
            journal.done()
    with Journal(path, '{"another": "request"}') as journal:
        assert journal.done() == set()


# --- interruptions -------------------------------------------------------------------------

WRITER = """
    import sys
    import numpy as np
    from rs_embed.runs.journal import Journal, JournalResult

    path, request, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Journal(path, request) as journal:
        assert journal.done() == {f"place {i}" for i in range(start)}
        for i in range(start, 10**6):
            journal.add(JournalResult(f"place {i}", np.full(1024, i, np.float32), {"i": i}))
            print(i, flush=True)
"""


def started(path: Path, start: int) -> AbstractContextManager[subprocess.Popen[str]]:
    return running("-c", textwrap.dedent(WRITER), str(path), REQUEST, str(start))


def interrupted(path: Path, start: int, adds: int, how: signal.Signals) -> tuple[int, str]:
    """Send a signal after so many adds; return how many the child had reported, and its errors."""
    with started(path, start) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        reported = [line_of(child) for _ in range(adds)]
        assert all(reported), child.stderr.read()
        child.send_signal(how)
        reported += list(child.stdout)
        return start + len(reported), child.stderr.read()


def test_killed_twice_and_interrupted_once_nothing_is_lost(path: Path) -> None:
    count = 0
    for how, adds in ((signal.SIGKILL, 23), (signal.SIGKILL, 7), (signal.SIGINT, 5)):
        reported, errors = interrupted(path, count, adds, how)
        assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT), errors
        with Journal(path, REQUEST) as journal:
            done = journal.done()
            # The last add may have been on the disk before it could be reported.
            assert reported <= len(done) <= reported + 1
            count = len(done)
            keys = [f"place {i}" for i in range(count)]
            assert done == set(keys)
            for i, result in enumerate(journal.results(keys)):
                assert result.meta == {"i": i}
                assert result.vector is not None
                assert np.array_equal(result.vector, np.full(1024, i, np.float32))
    assert count >= 35


def test_a_second_process_is_refused(path: Path) -> None:
    with started(path, 0) as child:
        assert line_of(child) == "0\n"
        with pytest.raises(ExportError, match="is in use by another process; wait for it"):
            Journal(path, REQUEST)
        child.kill()
    with Journal(path, REQUEST) as journal:
        assert "place 0" in journal.done()
        with pytest.raises(ExportError, match="is in use"):
            Journal(path, REQUEST)


def test_killed_before_anything_was_written(path: Path) -> None:
    path.touch()
    with Journal(path, REQUEST) as journal:
        assert journal.done() == set()


# --- what is refused -----------------------------------------------------------------------


def test_another_request_names_the_differences(path: Path) -> None:
    Journal(path, REQUEST).close()
    asked = {
        "sensor": {"scale_m": 20},
        "image_size": 256,
        "model": "scalemae",
        "weights": "x" * 199,
    }
    with pytest.raises(ExportError) as refused:
        Journal(path, json.dumps(asked))
    message = str(refused.value)
    assert (
        "sensor.scale_m was 10, is now 20; image_size was 224, is now 256; "
        'weights was not given, is now "xxx' in message
    )
    assert "xxx...)" in message
    assert message.endswith("or start again with overwrite=True (--overwrite)")
    with pytest.raises(ExportError, match="y was not given, is now 1 and 4 more"):
        Journal(path, json.dumps({"a": 1, "b": 1, "c": 1, "d": 1, "y": 1, "z": 1}))
    # The order of its members does not make another request, and a refusal changes nothing.
    reordered = dict(reversed(json.loads(REQUEST).items()))
    Journal(path, json.dumps(reordered)).close()
    with pytest.raises(SpecError, match="got request='{', expected JSON"):
        Journal(path, "{")


@pytest.mark.parametrize("content", [b"hello", b"no database" * 400, b"SQLite format 3\0" * 300])
def test_a_file_that_is_no_journal(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ExportError, match="not a journal of rs_embed, or is damaged .*--overwrite"):
        Journal(path, REQUEST)
    assert path.read_bytes() == content


def test_a_database_of_someone_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(ExportError, match="is a database that rs_embed did not write"):
        Journal(path, REQUEST)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["DELETE FROM request", "UPDATE request SET json = '{'",
                                    "DROP TABLE request", "DROP TABLE result"])  # fmt: skip
def test_a_journal_that_was_tampered_with(path: Path, change: str) -> None:
    Journal(path, REQUEST).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(change)
    with pytest.raises(ExportError, match="is damaged"), Journal(path, REQUEST) as journal:
        journal.done()


def filled(path: Path, count: int = 40) -> bytes:
    with Journal(path, REQUEST) as journal:
        for i in range(count):
            journal.add(JournalResult(str(i), vector(i, 1024), {"i": i}))
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_a_truncated_journal(path: Path, kept: float) -> None:
    content = filled(path)
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ExportError, match="is damaged"):
        Journal(path, REQUEST)


def test_damage_is_never_taken_for_a_result(path: Path) -> None:
    content = bytearray(filled(path))
    at = content.index(vector(7, 1024).tobytes()[:64])
    content[at] ^= 1
    path.write_bytes(content)
    wrong = pytest.raises(ExportError, match="wrong checksum of '7'")
    with Journal(path, REQUEST) as journal, wrong:
        list(journal.results([str(i) for i in range(40)]))
    rng = np.random.default_rng(0)
    for _ in range(30):
        broken = bytearray(content)
        broken[at] ^= 1
        start = int(rng.integers(0, len(broken) - 200))
        broken[start : start + 200] = rng.bytes(200)
        path.write_bytes(broken)
        try:
            with Journal(path, REQUEST) as journal:
                for result in journal.results(sorted(journal.done())):
                    assert result.vector is not None
                    assert np.array_equal(result.vector, vector(int(result.key), 1024))
        except ExportError:
            pass


def test_places_that_cannot_hold_a_journal(tmp_path: Path) -> None:
    for name in ("", "missing/batch.journal", "n" * 300):
        with pytest.raises(ExportError, match="cannot write"):
            Journal(tmp_path / name, REQUEST)
    read_only = tmp_path / "read-only.journal"
    Journal(read_only, REQUEST).close()
    read_only.chmod(0o400)
    if not os.access(read_only, os.W_OK):
        with pytest.raises(ExportError, match="cannot write .*readonly"):
            Journal(read_only, REQUEST)


def test_a_full_disk_keeps_what_was_added(path: Path) -> None:
    """The limit on file sizes fails a write where a full disk does, in the operating system."""
    code = """
        import resource, signal, sys
        import numpy as np
        from rs_embed.errors import ExportError
        from rs_embed.runs.journal import Journal, JournalResult

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        added = 0
        try:
            with Journal(sys.argv[1], sys.argv[2]) as journal:
                for added in range(100):
                    vector = np.full(1024, added, np.float32)
                    journal.add(JournalResult(str(added), vector))
        except ExportError as exc:
            print(added, "cannot write" in str(exc))
    """
    done = completed("-c", textwrap.dedent(code), str(path), REQUEST)
    added, refused = done.stdout.split()
    assert refused == "True", done.stderr
    assert int(added) > 10
    with Journal(path, REQUEST) as journal:
        assert journal.done() == {str(i) for i in range(int(added))}


# --- many vectors --------------------------------------------------------------------------


def rows() -> list[VectorRow]:
    return [
        VectorRow("broken", 10, 50, None, None, "no scene"),
        VectorRow("Åre", -75.5, 37.25, vector(1), {"scale_m": 10, "text": "ü"}),
        VectorRow("c", 180, -90, vector(2), None),
    ]


def test_many_vectors_survive(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    write_vectors(path, iter(rows()), 3)
    back = read_vectors(path)
    assert back.id.tolist() == ["broken", "Åre", "c"]
    assert back.ok.tolist() == [False, True, True]
    assert back.error == ("no scene", "", "")
    assert back.lon.tolist() == [10, -75.5, 180]
    assert back.lat.tolist() == [50, 37.25, -90]
    assert [json.loads(text) for text in back.meta] == [{}, {"scale_m": 10, "text": "ü"}, {}]
    assert back.embedding.dtype == np.float32
    assert np.isnan(back.embedding[0]).all()
    assert np.array_equal(back.embedding[1:], [vector(1), vector(2)])
    # Anyone can read it without us.
    with np.load(path, allow_pickle=False) as content:
        assert set(content) == {
            "embedding", "id", "ok", "lon", "lat", "error.jsonl", "meta.jsonl",
        }  # fmt: skip
        lines = content["meta.jsonl"].decode().splitlines()
        assert json.loads(lines[1]) == {"scale_m": 10, "text": "ü"}
        assert np.array_equal(content["embedding"], back.embedding, equal_nan=True)
        assert content["id"][1] == "Åre"


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_vectors(tmp_path: Path, count: int) -> None:
    write_vectors(
        tmp_path / "v.npz",
        (VectorRow(str(i), 0, 0, None, {"i": i}, "failed" * (i % 7)) for i in range(count)),
        count,
    )
    back = read_vectors(tmp_path / "v.npz")
    assert back.embedding.shape == (count, 0)
    assert back.id.tolist() == [str(i) for i in range(count)]
    assert list(back.error) == ["failed" * (i % 7) for i in range(count)]
    assert [json.loads(text)["i"] for text in back.meta] == list(range(count))


def test_memory_holds_the_vectors_once(tmp_path: Path) -> None:
    count, width = 4000, 1024

    def many() -> Iterator[VectorRow]:
        for i in range(count):
            yield VectorRow(str(i), 0, 0, np.full(width, i, np.float32), {"i": i})

    tracemalloc.start()
    write_vectors(tmp_path / "v.npz", many(), count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * count * width * 4


@pytest.mark.parametrize(
    ("given", "count", "match"),
    [
        (rows(), 2, "got more rows than the 2 expected"),
        (rows(), 4, "got 3 rows, expected 4"),
        ([*rows(), VectorRow("d", 0, 0, vector(1, 5))], 4,
         r"shape \(5,\) for 'd', expected \(8,\) as before"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(
    tmp_path: Path, given: list[VectorRow], count: int, match: str
) -> None:
    with pytest.raises(ExportError, match=match):
        write_vectors(tmp_path / "v.npz", given, count)
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    with pytest.raises(ExportError, match=r"there is no such file.*many vectors"):
        read_vectors(path)
    write_vector(path, vector(1), {})
    with pytest.raises(ExportError, match=r"cannot read .*expected a file of many vectors"):
        read_vectors(path)
    write_vectors(path, rows(), 3)
    with pytest.raises(ExportError, match=r"cannot read .*expected a file of one vector"):
        read_vector(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportError, match="cannot read"):
        read_vectors(path)
    with pytest.raises(ExportError, match="there is no folder"):
        write_vectors(tmp_path / "missing" / "v.npz", rows(), 3)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("embedding", np.ones((2, 4), np.float64), r"embedding is float64 of shape \(2, 4\)"),
        ("embedding", np.ones(2, np.float32), r"embedding is float32 of shape \(2,\)"),
        ("ok", np.ones(2, int), "ok is int64"),
        ("lon", np.ones(3), r"lon is float64 of shape \(3,\)"),
        ("id", np.array("a"), "id is <U1"),
        ("meta.jsonl", "{}\n", "2 errors and 1 metas of 2 places"),
        ("error.jsonl", "broken\n\n", "JSONDecodeError"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, name: str, value: Any, match: str) -> None:
    text, number = np.array(["a", "b"]), np.zeros(2)
    members: dict[str, Any] = {
        "embedding": np.zeros((2, 4), np.float32), "id": text, "ok": np.ones(2, bool),
        "lon": number, "lat": number, "error.jsonl": '""\n""\n', "meta.jsonl": "{}\n{}\n",
    }  # fmt: skip

    def write(**changed: Any) -> None:
        given = {**members, **changed}
        np.savez(tmp_path / "v.npz", **{k: v for k, v in given.items() if not isinstance(v, str)})
        with zipfile.ZipFile(tmp_path / "v.npz", "a") as archive:
            for member, content in given.items():
                if isinstance(content, str):
                    archive.writestr(member, content)

    write()
    assert read_vectors(tmp_path / "v.npz").id.tolist() == ["a", "b"]
    write(**{name: value})
    with pytest.raises(ExportError, match=match):
        read_vectors(tmp_path / "v.npz")
