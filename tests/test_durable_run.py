"""A durable run by itself: numbers are its items, and a text file of their squares its output."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from rs_embed import CheckpointError, ExportError, ProviderError
from rs_embed.runs.journal import JournalResult
from rs_embed.runs.run import DurableRun

WEIGHTS = {"weights_sha256": "a", "weights_revision": None}


class Squares:
    """Squares of numbers, in the order in which they were made."""

    def __init__(self, out: Path, *, odd_fail: bool = False, weights: str = "a") -> None:
        self.out = out
        self.odd_fail = odd_fail
        self.weights = {**WEIGHTS, "weights_sha256": weights}
        self.made: list[int] = []

    def run(
        self, numbers: Iterable[int], *, end: BaseException | None = None, at: int = -1,
        overwrite: bool = False, unit: str = "px",
    ) -> DurableRun:  # fmt: skip
        """Make the file; ``end`` is raised when the number ``at`` has its turn."""
        keys = map(str, numbers)
        run = DurableRun(
            self.out, {"unit": unit}, keys, items=("number", "numbers"), overwrite=overwrite
        )
        with run:
            for key in (*run.fresh, *run.failed_before):
                if end is not None and int(key) == at:
                    raise end
                run.check_weights(self.weights)
                self.made.append(int(key))
                run.keep([self.result(int(key))], shared=self.weights)
            squares = ["" if r.vector is None else str(r.vector[0]) for r in run.results()]
            self.out.write_text(" ".join(squares))
            run.finished(disposable=not run.failed())
        return run

    def result(self, number: int) -> JournalResult:
        if self.odd_fail and number % 2:
            return JournalResult(str(number), None, None, "odd")
        return JournalResult(str(number), np.full(1, number**2, np.float32), {"n": number}, None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "squares.txt"


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rs_embed.runs")


def test_it_leaves_its_output_alone(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Squares(out).run(range(4))
    assert (run.resumed, run.kept) == (0, 4)
    assert out.read_text() == "0.0 1.0 4.0 9.0"
    assert [path.name for path in out.parent.iterdir()] == ["squares.txt"]
    assert caplog.messages == []


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ProviderError("down"), MemoryError()])
def test_what_is_made_is_kept(
    out: Path, caplog: pytest.LogCaptureFixture, end: BaseException
) -> None:
    with pytest.raises(type(end)):
        Squares(out).run(range(4), end=end, at=3)
    why = "interrupted" if isinstance(end, KeyboardInterrupt) else "stopped"
    assert caplog.messages == [f"{why}: 3 of 4 numbers are kept; run it again to continue"]
    assert [path.name for path in out.parent.iterdir()] == ["squares.txt.partial"]
    caplog.clear()
    again = Squares(out)
    run = again.run(reversed(range(5)))  # another order, and one more
    assert (run.resumed, run.kept, again.made) == (3, 5, [4, 3])
    assert out.read_text() == "16.0 9.0 4.0 1.0 0.0"
    assert caplog.messages == ["resuming: 3 of 5 numbers are done"]


def test_a_run_that_holds_nothing_does_not_refuse_another(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProviderError):
        Squares(out).run(range(3), end=ProviderError("down"), at=0)
    assert caplog.messages == []
    with pytest.raises(KeyboardInterrupt):
        Squares(out, odd_fail=True).run([1, 3, 5], end=KeyboardInterrupt(), at=5)
    assert caplog.messages == ["interrupted: 0 of 3 numbers are kept; run it again to continue"]
    assert list(out.parent.iterdir()) == []


def test_what_failed_comes_last(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        Squares(out, odd_fail=True).run(range(5), end=KeyboardInterrupt(), at=4)
    again = Squares(out, odd_fail=True)
    run = again.run(range(7))
    assert again.made == [4, 5, 6, 1, 3]
    assert run.kept == 4
    assert caplog.messages[1:] == [
        "resuming: 2 of 7 numbers are done",
        "3 of 7 numbers failed; run it again to try again",
    ]
    assert out.read_text() == "0.0  4.0  16.0  36.0"
    repaired = Squares(out)
    repaired.run(range(7))  # not finished, so that it may be tried again
    assert repaired.made == [1, 3, 5]
    assert [path.name for path in out.parent.iterdir()] == ["squares.txt"]


def test_a_finished_output_is_only_replaced_with_overwrite(
    out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Squares(out).run(range(3))
    squares = Squares(out)
    with pytest.raises(ExportError, match=r"squares.txt exists already and is finished; .*overw"):
        squares.run(range(3))
    assert squares.made == []
    with pytest.raises(KeyboardInterrupt):
        squares.run(range(3), overwrite=True, end=KeyboardInterrupt(), at=1)
    assert caplog.messages == [
        "interrupted: 1 of 3 numbers is kept; run it again without overwrite to continue"
    ]
    assert Squares(out).run(range(3)).resumed == 1
    with pytest.raises(KeyboardInterrupt):
        squares.run(range(3), overwrite=True, end=KeyboardInterrupt(), at=1)
    assert squares.run(range(3), overwrite=True, unit="m").resumed == 0


def test_weights_that_changed_are_not_mixed(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Squares(out).run(range(4), end=KeyboardInterrupt(), at=3)
    other = Squares(out, weights="b")
    with pytest.raises(CheckpointError, match=r"got weights .*'b'.* numbers kept in .*'a'"):
        other.run(range(4))
    with pytest.raises(CheckpointError):  # not even where none of the kept ones is used
        other.run(range(7, 9))
    assert other.made == []
    assert Squares(out).run(range(4)).resumed == 3


def test_another_request_and_another_process_are_refused(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Squares(out).run(range(4), end=KeyboardInterrupt(), at=3)
    with pytest.raises(ExportError, match='another request .unit was "px", is now "m".'):
        Squares(out).run(range(4), unit="m")
    keys = map(str, range(4))
    with DurableRun(out, {"unit": "px"}, keys, items=("number", "numbers")):
        for overwrite in (False, True):
            with pytest.raises(ExportError, match="in use by another process"):
                Squares(out).run(range(4), overwrite=overwrite)
    assert Squares(out).run(range(4)).resumed == 3


def test_counting_what_is_left_changes_nothing(out: Path) -> None:
    def remaining(*, overwrite: bool = False) -> int:
        keys = map(str, range(4))
        run = DurableRun(
            out, {"unit": "px"}, keys, items=("number", "numbers"), overwrite=overwrite
        )
        return run.remaining()

    assert remaining() == 4
    assert list(out.parent.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        Squares(out, odd_fail=True).run(range(4), end=KeyboardInterrupt(), at=3)
    before = (out.parent / "squares.txt.partial").read_bytes()
    assert (remaining(), remaining(overwrite=True)) == (2, 4)
    assert (out.parent / "squares.txt.partial").read_bytes() == before


def test_an_error_is_restated_with_all_that_it_knows() -> None:
    error = ProviderError("busy", transient=True, retry_after_s=3)
    error.index = 7
    error.add_note("in the batch this is number 2")
    other = error.restated("place 'a': busy")
    assert (str(other), str(error)) == ("place 'a': busy", "busy")
    assert (other.transient, other.retry_after_s, other.index) == (True, 3, 7)
    assert type(other) is ProviderError
    assert not hasattr(other, "__notes__")
    assert str(ExportError("full").restated("disk")) == "disk"
