"""Cells of a notebook, run by a real kernel: progress, errors, and what objects show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import python_environment

pytest.importorskip("ipykernel", reason="notebooks need the package ipykernel")

SETUP = """
import warnings; warnings.simplefilter("ignore")
from rs_embed import *
from rs_embed.progress import Bar
import time
place = dict(spatial=(-75.6156, 37.6942), buffer_m=640, backend="sample", variant="tiny")
def count(show=None):
    with Bar(show, unit="place", total=3) as bar:
        for _ in range(3):
            bar.advance(); time.sleep(0.15)
"""


class Kernel:
    """A kernel, and the messages of its cells."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str) -> list[tuple[str, dict[str, Any]]]:
        messages: list[tuple[str, dict[str, Any]]] = []

        def keep(message: dict[str, Any]) -> None:
            if message["msg_type"] not in ("status", "execute_input"):
                messages.append((message["msg_type"], message["content"]))

        self._client.execute_interactive(code, timeout=120, output_hook=keep)
        return messages


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    from jupyter_client.manager import KernelManager  # type: ignore[import-not-found,unused-ignore]

    manager = KernelManager(kernel_name="none")
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = manager.kernel_spec_manager.kernel_spec_class(argv=command)
    manager.start_kernel(env=python_environment())
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        made = Kernel(client)
        assert [kind for kind, _ in made.run(SETUP) if kind == "error"] == []
        yield made
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_progress_is_a_bar_that_goes_away(kernel: Kernel) -> None:
    messages = kernel.run("count()")
    shown = [content["data"]["text/html"] for kind, content in messages if "display" in kind]
    assert {kind for kind, _ in messages} == {"display_data", "update_display_data"}
    assert '<progress value="1" max="3"></progress> 1/3 places' in shown[0]
    assert "2/3 places" in shown[1]
    assert shown[-1] == ""
    assert kernel.run("count(show=False)") == []


def test_no_progress_in_a_pipe(kernel: Kernel) -> None:
    """A process of the notebook writes to a pipe."""
    messages = kernel.run(
        "import subprocess, sys; code = 'from rs_embed.progress import Bar\\n'"
        "'with Bar(None, unit=\"place\", total=3) as bar: bar.advance()'\n"
        "subprocess.run([sys.executable, '-c', code], capture_output=True).stderr"
    )
    assert messages[-1][1]["data"]["text/plain"] == "b''"


ERRORS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "at once": (
        "def mine():\n    return get_embedding('scalemae', bbox=1)\nmine()",
        "rs_embed.errors.UnknownNameError: unknown argument 'bbox'",
        ("in <module>", "mine()", "in mine", "get_embedding('scalemae', bbox=1)"),
    ),
    "of a file": (
        "get_embedding('scalemae', imagery='none.tif', variant='tiny')",
        "rs_embed.errors.ImageryError: cannot read 'none.tif'", ("in <module>",),
    ),
    "of a place of a batch": (
        "get_embeddings_batch('scalemae', spatials=[(-75.6156, 37.6942), (0, 0)], buffer_m=640, "
        "backend='sample', variant='tiny')",
        "in the batch this is number 1: ", ("in <module>",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_ends_with_its_message(kernel: Kernel, name: str) -> None:
    code, last, shown = ERRORS[name]
    (*_, (kind, content)) = kernel.run(code)
    assert kind == "error"
    lines = content["traceback"]
    text = "\n".join(lines)
    assert last in lines[-1] + lines[-2]
    assert len(lines) < 12
    assert all(part in text for part in shown)
    assert "site-packages" not in text
    assert "/rs_embed/" not in text
    (*_, (_, whole)) = kernel.run(
        "import io, sys, traceback; file = io.StringIO()\n"
        "traceback.print_exception(sys.last_value, file=file); file.getvalue()"
    )
    assert "/rs_embed/" in whole["data"]["text/plain"]
