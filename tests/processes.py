"""Child processes of tests: nothing waits for them for ever."""

from __future__ import annotations

import base64
import json
import os
import pickle
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from subprocess import Popen
from typing import Any

# Long enough for any child on a busy machine: the end of a test that hangs, never a measurement.
WAIT_S = 120
# Where the fork server of all tests of this run listens.
SERVER = "TESTS_FORK_SERVER"


@contextmanager
def fork_server() -> Iterator[None]:
    """Let this process and its children use one `tests.fork_server`, where there is one."""
    if sys.platform != "linux":  # others have no such sockets, or no safe forks
        yield
        return
    with tempfile.TemporaryDirectory(prefix="forks_") as folder:
        address = f"{folder}/socket"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(address)
        listener.listen(64)
        with Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno())],
            cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()], start_new_session=True,
        ) as server:  # fmt: skip
            listener.close()
            os.environ[SERVER] = address
            try:
                yield
            finally:
                del os.environ[SERVER]
                server.communicate()  # standard input ends, and it with it


class Forked(Popen[str]):
    """A Python that the fork server makes: a process of its own, with its own end."""

    def _execute_child(self, *given: Any) -> None:
        named = signature(Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        env = os.environ if named["env"] is None else named["env"]
        cwd = os.getcwd() if named["cwd"] is None else os.fspath(named["cwd"])
        request = {"arguments": named["args"][1:], "env": dict(env), "cwd": cwd}
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._told.connect(os.environ[SERVER])
        ends = [named[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        with open(os.devnull) as nothing:
            streams = [end if end >= 0 else n or nothing.fileno() for n, end in enumerate(ends)]
            socket.send_fds(self._told, [json.dumps(request).encode()], streams)
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(named[pipe] for pipe in pipes))  # type: ignore[attr-defined]
        self.pid = int.from_bytes(self._told.recv(4), "little")
        if not self.pid:
            raise ChildProcessError("the fork server has ended; see what it wrote")
        self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if flags and not select.select([self._told], [], [], 0)[0]:
            return 0, 0
        with self._told:
            return self.pid, int.from_bytes(self._told.recv(4), "little")

    def _internal_poll(self, **_: object) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


def started(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stderr: int = subprocess.PIPE,
    fresh: bool = False,
) -> Popen[str]:
    """Start a Python.

    What most tests need is imported already, unless it is to be ``fresh``: for tests of what an
    interpreter does when it starts or ends, and of its memory.
    """
    kind = Popen if fresh or SERVER not in os.environ else Forked
    return kind(
        [sys.executable, *arguments],
        env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True,
    )  # fmt: skip


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[Popen[str]]:
    """Start a Python; it is killed at the end of the block, and after ``WAIT_S`` at the latest."""
    with started(*arguments, **options) as process:
        end = threading.Timer(WAIT_S, process.kill)
        end.daemon = True
        end.start()
        try:
            yield process
        finally:
            end.cancel()
            process.kill()


def completed(
    *arguments: str, wait_s: float = WAIT_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a Python to its end."""
    with started(*arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=wait_s)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def called(
    function: Callable[..., Any], *arguments: Any, env: Mapping[str, str] | None = None
) -> Any:
    """Return what a function of a module returns in another process."""
    code = (
        "import base64, pickle, sys\n"
        "function, arguments = pickle.loads(base64.b64decode(sys.stdin.read()))\n"
        "print(base64.b64encode(pickle.dumps(function(*arguments))).decode())"
    )
    with running("-c", code, env=env, stdin=subprocess.PIPE) as process:
        given = base64.b64encode(pickle.dumps((function, arguments))).decode()
        out, err = process.communicate(given, timeout=WAIT_S)
    assert process.returncode == 0, err
    return pickle.loads(base64.b64decode(out))  # noqa: S301


def line_of(process: Popen[str]) -> str:
    """Return the next line that a child prints; empty once it has ended."""
    assert process.stdout is not None
    return process.stdout.readline()


def errors_of(process: Popen[str]) -> str:
    """Return what a child that has ended wrote to standard error."""
    return process.communicate(timeout=WAIT_S)[1]
