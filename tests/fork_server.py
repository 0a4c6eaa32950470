"""Python processes without the seconds that importing takes: ``python -m tests.fork_server``.

One process imports what most tests need, once, and forks for each request: a process of its own
with its arguments, environment, folder and streams, which a signal ends as it ends any other. A
request comes on a connection of its own; the pid and then the wait status go back on it.

Nothing here may start a thread or compute with PyTorch, and what reads the environment when it is
imported is left to the children: the client of the hub, matplotlib, rich.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any, NoReturn

MODULES = [
    "fsspec.implementations.local", "geopandas", "hypothesis", "markdown_it", "numpy",
    "PIL.PngImagePlugin", "pyarrow.dataset", "pyarrow.parquet", "pydantic", "pystac", "pytest",
    "rasterio", "rasterio.shutil", "rio_cogeo", "rioxarray", "safetensors.torch", "shapely",
    "sklearn.decomposition", "torch", "torch._dynamo", "typer.testing", "zarr", "rs_embed.cli",
    "rs_embed.embedding.loop", "rs_embed.evaluation", "rs_embed.maps.area",
    "rs_embed.maps.formats.writing", "rs_embed.models.scalemae.model", "rs_embed.providers.local",
    "rs_embed.providers.sample", "rs_embed.runs.worker", "rs_embed.tables.batch",
    "rs_embed.training.pretraining",
]  # fmt: skip


def serve(listener: socket.socket) -> Callable[[], object]:
    """Fork for each request until standard input ends; return, in the fork, what it is to run."""
    imported = False
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if listener.fileno() not in ready:
            os._exit(0)  # the tests have ended
        connection, _ = listener.accept()
        with connection:
            request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            if not imported:
                for name in MODULES:
                    importlib.import_module(name)
                gc.freeze()  # forks share what is there
                imported = True
            if not os.fork():
                child = os.fork()
                if not child:
                    listener.close()
                    return _prepared(streams, **json.loads(request))
                _tell_its_end(child, connection, [0, *streams])
            for stream in streams:
                os.close(stream)


def _tell_its_end(child: int, connection: socket.socket, streams: list[int]) -> NoReturn:
    """Send which process the child is and, once it has ended, its wait status.

    It ends at the latest with the connection.
    """
    for stream in streams:
        os.close(stream)
    connection.sendall(child.to_bytes(4, "little"))
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, connection.fileno()], [], [])[0]:
        os.kill(child, signal.SIGKILL)  # whoever has started it is gone
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        connection.sendall(status.to_bytes(4, "little"))
    os._exit(0)


def _prepared(
    streams: list[int], arguments: list[str], env: dict[str, str], cwd: str
) -> Callable[[], object]:
    """Make this process what an interpreter with these arguments is; return what that runs."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    importlib.invalidate_caches()
    actions = [action for action in env.get("PYTHONWARNINGS", "").split(",") if action]
    while arguments[0] == "-W":
        actions, arguments = [*actions, arguments[1]], arguments[2:]
    for action in actions:
        warnings.simplefilter(action)  # type: ignore[arg-type]
    kind, what, *given = arguments
    sys.argv = [kind, *given]
    if kind == "-m":
        sys.path[0] = cwd
        sys.modules.pop(what, None)  # as a module it is another one than as the program
        return partial(runpy.run_module, what, run_name="__main__", alter_sys=True)
    sys.path[0] = ""
    main = sys.modules["__main__"] = ModuleType("__main__")
    return partial(exec, compile(what, "<string>", "exec"), vars(main))


def run_to_its_end(run: Callable[[], object]) -> None:
    """Run it and end as an interpreter does, less the half second in which it frees all modules."""
    code: Any = 0
    try:
        run()
    except SystemExit as exc:
        code = exc.code or 0
        if not isinstance(code, int):
            raise
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run_to_its_end(serve(socket.socket(fileno=int(sys.argv[1]))))
