"""A fork of the fork server is what a new interpreter is."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.conftest import python_environment
from tests.processes import SERVER, WAIT_S, Forked, completed, errors_of, line_of, running

BASE64 = r"""b'Aladdin:open sesame'
b'QWxhZGRpbjpvcGVuIHNlc2FtZQ==\n'
b'Aladdin:open sesame'
"""
# What runs; its standard output, its exit code, and how its standard error ends.
PROGRAMS: dict[str, tuple[list[str], str, int, str]] = {
    "arguments": (["-c", "import sys; print(*sys.argv, sys.path[0])", "a b"], "-c a b \n", 0, ""),
    "a module": (["-m", "base64", "-t"], BASE64, 0, ""),
    "environment": (
        ["-c", "import os; print(os.environ['MARK'], os.getenv('HOME'))"], "x None\n", 0, ""
    ),
    "exit code": (["-c", "raise SystemExit(7)"], "", 7, ""),
    "a message": (["-c", "raise SystemExit('no')"], "", 1, "no\n"),
    "an error": (["-c", "1 / 0"], "", 1, "ZeroDivisionError: division by zero\n"),
    "Ctrl-C": (["-c", "raise KeyboardInterrupt"], "", -signal.SIGINT, "KeyboardInterrupt\n"),
    "killed": (["-c", "import os; os.kill(os.getpid(), 9)"], "", -signal.SIGKILL, ""),
    "a warning": (
        ["-W", "error", "-c", "import warnings; warnings.warn('odd')"], "", 1, "UserWarning: odd\n"
    ),
    "what ends last": (
        ["-c", "import atexit, threading, time; atexit.register(print, 'at exit')\n"
               "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()"],
        "thread\nat exit\n", 0, "",
    ),
    "what reads the environment when it is imported": (
        ["-c", "import sys; print({'huggingface_hub', 'matplotlib', 'ray'} & {*sys.modules})"],
        "set()\n", 0, "",
    ),
    "threads": (["-c", "import threading; print(threading.active_count())"], "1\n", 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("fresh", [False, True], ids=["fork", "interpreter"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end_alike(name: str, fresh: bool) -> None:
    arguments, out, code, err = PROGRAMS[name]
    env = {k: v for k, v in python_environment(MARK="x").items() if k != "HOME"}
    done = completed(*arguments, env=env, fresh=fresh)
    assert (done.stdout, done.returncode) == (out, code)
    assert done.stderr.endswith(err) if err else not done.stderr


@pytest.mark.skipif(SERVER not in os.environ, reason="no fork server")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(end: signal.Signals) -> None:
    code = "import os, time; print(os.getpid(), input(), flush=True); time.sleep(600)"
    with running("-c", code, stdin=subprocess.PIPE) as process:
        assert isinstance(process, Forked)
        assert process.stdin is not None
        process.stdin.write("read\n")
        process.stdin.flush()
        assert line_of(process) == f"{process.pid} read\n"
        assert process.poll() is None
        process.send_signal(end)
        assert process.wait(WAIT_S) == -end
        assert ("KeyboardInterrupt" in errors_of(process)) == (end == signal.SIGINT)
