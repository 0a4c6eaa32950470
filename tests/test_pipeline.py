"""Stages are ordered and bounded, and end when they are closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rs_embed.pipeline import grouped, in_order, ordered

BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _before() -> None:
    """Leave threads of earlier tests out."""
    BEFORE.update(threading.enumerate())


def threads() -> list[str]:
    known = [t for t in threading.enumerate() if t not in BEFORE]
    return [t.name for t in known if t.name.startswith("rs_embed-")]


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
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith("rs_embed-"))
    release.set()
    for thread in [t for t in threading.enumerate() if t.name in threads() and t not in BEFORE]:
        thread.join(60)
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
