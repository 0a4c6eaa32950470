"""Servers that answer badly: never, for ever, or faulty by chance."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rs_embed.errors import RsEmbedError
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.local import LocalProvider
from rs_embed.providers.stac.provider import StacProvider
from rs_embed.testing.providers import JUNE, NORTH, SENSOR
from tests.stac_server import Fault, StacServer

_QUICK = Patience(wait_initial_s=0.01, wait_max_s=0.05)
_SIDE = 20


def try_faults(
    kinds: str, *, places: int, share: float, scenes: Path, workers: int = 4
) -> tuple[list[str], int, int]:
    """Fetch places while a share of all answers is faulty, of each of the comma-separated kinds.

    Returns the messages of lost places, the number of places whose pixels are not those on disk,
    and the number of requests.
    """
    height, width = NORTH[0].grid.shape
    grids = [
        NORTH[0].grid.window(7 * n % (height - _SIDE), 3 * n % (width - _SIDE), _SIDE, _SIDE)
        for n in range(places)
    ]
    on_disk = LocalProvider(scenes)
    with StacServer().running() as server:
        server.add(scenes)
        names = kinds.split(",")
        server.faults = [Fault(".", kind, share=share / len(names)) for kind in names]
        provider = StacProvider(server.url, patience=_QUICK, readers=2)

        def fetched(grid: Grid) -> Raster | RsEmbedError:
            try:
                return provider.fetch(grid, temporal=JUNE, sensor=SENSOR)
            except RsEmbedError as exc:
                return exc

        with ThreadPoolExecutor(workers) as pool:
            results = list(pool.map(fetched, grids))
        requests = len(server.requests)
    lost = [str(result) for result in results if isinstance(result, RsEmbedError)]
    wrong = 0
    for grid, result in zip(grids, results, strict=True):
        if isinstance(result, Raster):
            right = on_disk.fetch(grid, temporal=JUNE, sensor=SENSOR)
            wrong += not np.array_equal(result.data, right.data)
            wrong += not np.array_equal(result.valid, right.valid)
    return lost, wrong, requests


Answer = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, threading.Event]]:
    """A server that treats each connection so until the end; its URL, and whether anybody came."""
    came, ended = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def treat(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection, ended)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection = listener.accept()[0]
                came.set()
                threads.append(threading.Thread(target=treat, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve)
        accepting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", came
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *threads):
        thread.join(60)


def silent(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait()


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"


def dripping(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(JSON)
    while not ended.wait(0.05):
        connection.sendall(b" ")


def endless(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(JSON.replace(b"Content-Length: 1000000\r\n", b""))
    while not ended.is_set():
        connection.sendall(b" " * 1_000_000)
