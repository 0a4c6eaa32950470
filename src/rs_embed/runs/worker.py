"""A worker process: ``python -m rs_embed.runs.worker``, started by `rs_embed.runs.processes`.

It reads pickles on standard input (how to start, then numbered shards) and writes pickles to
standard output (``"began"``, then number, results and warnings of each shard).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rs_embed.runs.shards import Shard, Work


def main() -> None:
    """Work through shards until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    given = sys.stdin.buffer
    sent = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not a message
    sys.path[:], threads, work = pickle.load(given)  # noqa: S301  # of the parent
    # Before PyTorch and BLAS are imported, which read it once.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    inbox: SimpleQueue[tuple[int, Shard]] = SimpleQueue()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded: Work = pickle.loads(work)  # noqa: S301
            # Not before: two threads that import the same packages may meet half of one.
            threading.Thread(target=_receive, args=(given, inbox), daemon=True).start()
            _send(sent, "began")
            while True:
                _stream(loaded, inbox, sent, caught)
        except Exception as exc:  # noqa: BLE001  # raised by the parent
            _send(sent, (0, sendable(exc), []))


def _receive(given: IO[bytes], inbox: SimpleQueue[tuple[int, Shard]]) -> None:
    while True:
        try:
            inbox.put(pickle.load(given))  # noqa: S301
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # the parent has ended


def _stream(
    work: Work,
    inbox: SimpleQueue[tuple[int, Shard]],
    sent: IO[bytes],
    caught: list[warnings.WarningMessage],
) -> None:
    """Work through the shards that are there, and send what comes of them."""
    numbers: list[int] = []

    def shards() -> Iterator[Shard]:
        number, shard = inbox.get()
        while True:
            numbers.append(number)
            yield shard
            try:
                # It does not wait: what is under way would wait with it.
                number, shard = inbox.get_nowait()
            except Empty:
                return

    for _, results in work.stream(shards()):
        _send(sent, (numbers.pop(0), results, notes_of(caught)))


def notes_of(caught: list[warnings.WarningMessage]) -> list[Any]:
    """Return the warnings of the library that were given since the last call."""
    from rs_embed.errors import Note, RsEmbedWarning

    found, caught[:] = list(caught), []
    return [
        Note(str(one.message), one.category)
        for one in found
        if issubclass(one.category, RsEmbedWarning)
    ]


def _send(sent: IO[bytes], message: Any) -> None:
    pickle.dump(message, sent)
    sent.flush()


def sendable(error: Exception) -> Exception:
    """Return an error for the parent to raise, with the traceback as a note."""
    import traceback

    from rs_embed.errors import EngineError

    lines = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001  # whatever it raises, it cannot be sent
        error = EngineError(f"a worker process failed: {error!r}")
    error.add_note(f"in a worker process:\n{lines}")
    return error


if __name__ == "__main__":
    main()
