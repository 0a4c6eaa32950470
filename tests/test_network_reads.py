"""Images on servers, outside the providers: nobody waits for ever, and Ctrl-C works."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import python_environment
from tests.processes import errors_of, line_of, running


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Event]]:
    """A server that accepts, and never answers; its address, and whether somebody came."""
    came = threading.Event()
    kept = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                kept.append(listener.accept()[0])
            except OSError:
                return
            came.set()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/scene.tif", came
    listener.close()
    for connection in kept:
        connection.close()


CALLS = {
    "get_embedding": "get_embedding('scalemae', imagery={url!r}, weights='scalemae-tiny')",
    "inspect_input": "inspect_input('scalemae', imagery={url!r}, variant='tiny')",
    "embed_area": "embed_area('scalemae', imagery={url!r}, output='map.tif', variant='tiny')",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_ctrl_c_ends_a_read_that_a_server_never_answers(
    call: str, silent: tuple[str, threading.Event]
) -> None:
    """Without it the child would wait for GDAL's time-outs, longer than the test lets it run."""
    url, came = silent
    name = call.partition("(")[0]
    code = f"from rs_embed import {name}; print('begun', flush=True); {call.format(url=url)}"
    with running("-c", code, env=python_environment()) as child:
        assert line_of(child).strip() == "begun"
        assert came.wait(60)
        child.send_signal(signal.SIGINT)
        said = errors_of(child)
        assert child.returncode not in (0, -signal.SIGKILL)
    assert "KeyboardInterrupt" in said
