"""Stages are ordered and bounded, and end when they are closed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.parallel.pipeline import apart, grouped, in_order, ordered
from tests.threads import at_work

BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _before() -> None:
    """Leave threads out that are still at work for earlier tests."""
    BEFORE.update(at_work())


def threads() -> list[str]:
    return [t.name for t in at_work() - BEFORE]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order(workers: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 5 == 0 else 0)
        return number * number

    assert list(ordered(range(40), work, workers=workers, ahead=8)) == [n * n for n in range(40)]
    assert not threads()


def test_reads_overlap() -> None:
    meeting = threading.Barrier(4, timeout=60)  # passes only when four are at work at once
    assert len(list(ordered(range(8), lambda _: meeting.wait(), workers=4, ahead=4))) == 8


def test_no_more_items_are_consumed_than_allowed() -> None:
    taken, given_back = 0, 0

    def source() -> Iterator[int]:
        nonlocal taken
        for number in range(200):
            taken += 1
            assert taken - given_back <= 6 + 1
            yield number

    for _ in ordered(source(), lambda n: n, workers=3, ahead=6):
        given_back += 1
    assert taken == 200


def test_the_lead_grows_while_the_consumer_is_busy() -> None:
    done = threading.Semaphore(0)

    def work(number: int) -> int:
        done.release()
        return number

    results = ordered(range(100), work, workers=2, ahead=10)
    for _ in range(30):
        next(results)
    finished = 0
    while done.acquire(timeout=60 if finished < 30 + 10 - 1 else 0.2):
        finished += 1
    assert finished in (30 + 10 - 1, 30 + 10)
    results.close()
    assert not threads()


def test_an_error_is_raised_in_order_and_ends_the_threads() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise LookupError("three")
        return number

    results = ordered(range(100), work, workers=4, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="three"):
        next(results)
    assert not threads()


@pytest.mark.parametrize("workers", [0, 4])
def test_an_error_of_the_source_is_raised_after_earlier_results(workers: int) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise OSError("the list broke off")

    results = ordered(source(), lambda n: n, workers=workers, ahead=3)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="broke off"):
        next(results)
    assert not threads()


def test_closing_waits_briefly_for_unfinished_work() -> None:
    release = threading.Event()
    started = threading.Semaphore(0)

    def work(number: int) -> None:
        started.release()
        if number:
            release.wait(120)

    results = ordered(range(9), work, workers=2, ahead=4)
    next(results)
    assert started.acquire(timeout=60)
    results.close()
    assert threads()  # still at work: nobody waited for it
    assert all(thread.daemon for thread in at_work())
    release.set()
    deadline = time.monotonic() + 60
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc-")), st.integers(1, 5), st.integers(1, 12))
def test_groups_contain_every_item_once_and_wait_no_longer_than_allowed(
    kinds: list[str], size: int, hold: int
) -> None:
    arrived: list[int] = []

    def source() -> Iterator[tuple[int, str]]:
        for number, kind in enumerate(kinds):
            arrived.append(number)
            yield number, kind

    seen = []
    for group in grouped(
        source(), lambda item: None if item[1] == "-" else item[1], size=size, hold=hold
    ):
        assert len({kind for _, kind in group}) == 1
        assert len(group) == 1 if group[0][1] == "-" else len(group) <= size
        seen += [number for number, _ in group]
        waited = arrived[-1] - group[0][0]
        # At most a few groups of other kinds are ahead of it at the limit.
        assert waited <= hold + len("abc")
    assert sorted(seen) == list(range(len(kinds)))


@settings(deadline=None)
@given(st.permutations(range(20)))
def test_order_is_restored(numbers: list[int]) -> None:
    assert list(in_order((n, str(n)) for n in numbers)) == [str(n) for n in range(20)]


# --- threads are used again ------------------------------------------------------------------


def idents(count: int, reuse: int) -> list[set[int]]:
    """Return which threads several stages in a row have worked in."""
    made = []
    for _ in range(reuse):
        meeting = threading.Barrier(count, timeout=60)

        def work(_: int, meeting: threading.Barrier = meeting) -> int:
            meeting.wait()
            return threading.get_ident()

        made.append(set(ordered(range(count), work, workers=count, ahead=count)))
    return made


def test_threads_are_used_again_and_end_when_idle() -> None:
    first, *others = idents(4, 5)
    assert others == [first] * 4
    # A thread is idle a moment after its work is done, so another of them may come next.
    assert {apart(threading.get_ident) for _ in range(3)} <= first
    deadline = time.monotonic() + 30
    while idle := [t for t in threading.enumerate() if t.ident in first]:
        assert time.monotonic() < deadline, idle
        time.sleep(0.05)


def test_work_that_hangs_keeps_its_thread_only() -> None:
    release, (before,) = threading.Event(), idents(2, 1)
    with pytest.raises(TimeoutError):
        apart(lambda: release.wait(60), within_s=0)
    after = idents(2, 1)[0]
    release.set()
    assert len(before & after) == 1


LEFT_IDLE = """
import os, sys
from rs_embed.parallel.pipeline import ordered
made = lambda: list(ordered(range(9), abs, workers=4, ahead=4))
made()
if sys.argv[1] == "fork" and not os.fork():
    os._exit(made() != list(range(9)))
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]) if sys.argv[1] == "fork" else 7)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("exit", 7),
        pytest.param("fork", 0, marks=pytest.mark.skipif(os.name == "nt", reason="fork")),
    ],
)
def test_idle_threads_neither_delay_the_end_nor_pass_a_fork(how: str, code: int) -> None:
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", LEFT_IDLE, how], timeout=60)
    assert ended.returncode == code
    assert time.monotonic() - start < 30
