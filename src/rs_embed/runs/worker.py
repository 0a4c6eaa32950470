"""A worker process: ``python -m rs_embed.runs.worker``, started by `rs_embed.runs.processes`.

It reads pickles on standard input (how to start, then numbered shards) and writes pickles to
standard output (``"began"``, then number, results and warnings of each shard). A message is the
pickle of a pickle: threads that receive it import nothing, since modules that import each other
cannot be imported by two threads at once.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from rs_embed.settings import set_default

if TYPE_CHECKING:
    from rs_embed.errors import Note
    from rs_embed.runs.shards import Shard, Work


def main() -> None:
    """Work through shards until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, and ends this
    given = sys.stdin.buffer
    sent = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not a message
    sys.path[:], threads, work = pickle.loads(received(given))  # noqa: S301  # of the parent
    # Before PyTorch and BLAS are imported, which read it once.
    set_default("OMP_NUM_THREADS", str(threads))
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(given, inbox), daemon=True).start()
    with warnings_kept() as caught:
        try:
            loaded: Work = pickle.loads(work)  # noqa: S301
            send(sent, "began")
            stream_for_ever(loaded, inbox, partial(send, sent), caught)
        except Exception as exc:  # noqa: BLE001  # raised by the parent
            send(sent, (0, sendable(exc), []))


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message to another process."""
    pickle.dump(pickle.dumps(message), stream)
    stream.flush()


def received(stream: IO[bytes]) -> bytes:
    """Return the pickle of a message; `EOFError` or `pickle.UnpicklingError` at the end."""
    message: bytes = pickle.load(stream)  # noqa: S301  # of our own process
    return message


def _receive(given: IO[bytes], inbox: SimpleQueue[bytes]) -> None:
    while True:
        try:
            inbox.put(received(given))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # the parent has ended


def stream_for_ever(
    work: Work,
    inbox: SimpleQueue[bytes],
    put: Callable[[Any], None],
    caught: list[warnings.WarningMessage],
) -> None:
    """Work through pickles of numbered shards, and put what comes of them."""
    while True:
        _stream(work, inbox, put, caught)


def _stream(
    work: Work,
    inbox: SimpleQueue[bytes],
    put: Callable[[Any], None],
    caught: list[warnings.WarningMessage],
) -> None:
    """Work through the shards that are there."""
    numbers: list[int] = []

    def shards() -> Iterator[Shard]:
        message = inbox.get()
        while True:
            number, shard = pickle.loads(message)  # noqa: S301
            numbers.append(number)
            yield shard
            try:
                # It does not wait: what is under way would wait with it.
                message = inbox.get_nowait()
            except Empty:
                return

    for _, results in work.stream(shards()):
        put((numbers.pop(0), results, notes_of(caught)))


@contextmanager
def warnings_kept() -> Iterator[list[warnings.WarningMessage]]:
    """Keep warnings for `notes_of`, those of the library each time."""
    from rs_embed.errors import RsEmbedWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RsEmbedWarning)
        yield caught


def notes_of(caught: list[warnings.WarningMessage]) -> list[Note]:
    """Return the warnings of the library since the last call; others go to standard error."""
    from rs_embed.errors import Note, RsEmbedWarning

    notes = []
    found, caught[:] = list(caught), []
    for one in found:
        if issubclass(one.category, RsEmbedWarning):
            notes.append(Note(str(one.message), one.category))
        else:
            about = one.message, one.category, one.filename, one.lineno
            sys.stderr.write(warnings.formatwarning(*about))
    return notes


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
