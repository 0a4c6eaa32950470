"""Images on servers, outside the providers: nobody waits for ever, and Ctrl-C works."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rs_embed.errors import ImageryError, ProviderError
from rs_embed.files.gdal import tried_again
from rs_embed.files.imagery import read_imagery
from rs_embed.files.rasters import read_header
from rs_embed.network.answers import is_passing, retry_after_s
from rs_embed.network.retrying import Patience
from rs_embed.providers.earth_engine.failures import translated
from rs_embed.providers.local import LocalProvider
from rs_embed.providers.stac.provider import StacProvider
from rs_embed.testing.providers import JUNE, NORTH, SENSOR, write_contract_scenes
from tests.conftest import python_environment
from tests.faulty_answers import Answer, answering, dripping, endless, silent, try_faults
from tests.processes import errors_of, line_of, running
from tests.stac_server import Fault, StacServer

GRID = NORTH[0].grid.window(20, 70, 20, 20)


CALLS = {
    "get_embedding": "get_embedding('scalemae', imagery={url!r}, weights='scalemae-tiny')",
    "inspect_input": "inspect_input('scalemae', imagery={url!r}, variant='tiny')",
    "embed_area": "embed_area('scalemae', imagery={url!r}, output='map.tif', variant='tiny')",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_ctrl_c_ends_a_read_that_a_server_never_answers(call: str) -> None:
    """Without it the child would wait for GDAL's time-outs, longer than the test lets it run."""
    with ExitStack() as stack:
        url, came = stack.enter_context(answering(silent))
        name = call.partition("(")[0]
        call = call.format(url=f"{url}/scene.tif")
        code = f"from rs_embed import {name}; print('begun', flush=True); {call}"
        child = stack.enter_context(running("-c", code, env=python_environment()))
        assert line_of(child).strip() == "begun"
        assert came.wait(60)
        child.send_signal(signal.SIGINT)
        said = errors_of(child)
        assert child.returncode not in (0, -signal.SIGKILL)
    assert "KeyboardInterrupt" in said


# One clock, and what passes by itself

QUICK = Patience(wait_initial_s=0.01, wait_max_s=0.02)


@pytest.mark.parametrize(
    ("status", "passes"),
    [(408, True), (425, True), (429, True), (500, True), (502, True), (503, True), (504, True),
     (520, True), (524, True),
     (400, False), (401, False), (403, False), (404, False), (410, False),
     (501, False), (505, False), (507, False), (508, False), (511, False)],
)  # fmt: skip
def test_one_table_says_what_passes(status: int, passes: bool, scenes: Path) -> None:
    """The STAC API, files over GDAL and Earth Engine read the same one."""
    assert is_passing(status) == passes
    assert translated(_HttpError(status)).transient == passes
    with StacServer(folders={"files": scenes}).running() as server:
        server.faults = [Fault("tif$", str(status))]
        with pytest.raises(ImageryError) as read:
            read_header(f"{server.url}/files/north-1/B4.tif")
        assert read.value.transient == passes
        server.faults = [Fault("^/$", str(status))]
        with pytest.raises(ProviderError, match=f"HTTP {status}") as searched:
            StacProvider(server.url, patience=Patience(attempts=1)).check_sensor(SENSOR)
        assert searched.value.transient == passes


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "-7"}, 0),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        # The server's clock counts, however wrong.
        ({"Retry-After": "Sat, 02 Jan 1999 10:00:30 GMT",
          "Date": "Sat, 02 Jan 1999 10:00:00 GMT"}, 30),
        ({"Retry-After": "Sat, 02 Jan 1999 10:00:30 GMT"}, 0),
    ],
)  # fmt: skip
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


class _HttpError(Exception):
    """As of Earth Engine's client."""

    def __init__(self, status: int) -> None:
        super().__init__("reason")
        self.resp = type("Response", (dict,), {"status": status})()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


def test_final_failures_are_not_tried_again(scenes: Path) -> None:
    with StacServer().running() as server:
        server.add(scenes)
        server.faults = [Fault("search", "501")]
        provider = StacProvider(server.url, patience=QUICK)
        with pytest.raises(ProviderError, match="HTTP 501"):
            provider.fetch(GRID, temporal=JUNE, sensor=SENSOR)
        assert len(server.paths("search")) == 1


FAULTS = ("429", "503", "reset", "truncate", "html")


@pytest.mark.fault
@pytest.mark.parametrize("kind", [*FAULTS, ",".join(FAULTS)])
def test_a_fifth_of_faulty_answers_loses_no_place(
    kind: str, scenes: Path, often: Callable[[int, int], int], tell: Callable[[str], None]
) -> None:
    places = often(6, 240)
    lost, wrong, requests = try_faults(kind, places=places, share=0.2, scenes=scenes)
    tell(
        f"STAC: {places} places, {kind} in place of a fifth of {requests} answers: {len(lost)} "
        f"lost, {wrong} wrong"
    )
    assert not lost
    assert not wrong


@pytest.mark.parametrize(
    "fault",
    [Fault("B4.tif", "html", times=2), Fault("B4.tif", "503", times=4),
     Fault("B4.tif", "truncate", times=2), Fault("B4.tif", "reset", times=4)],
    ids=lambda fault: fault.kind,
)  # fmt: skip
def test_an_image_on_the_web_is_read_again(fault: Fault, scenes: Path) -> None:
    with StacServer(folders={"files": scenes}, faults=[fault]).running() as server:
        url = f"{server.url}/files/north-1/B4.tif"
        raster = read_imagery(url, bands=("B4",), spatial=None, fill_value=None)
    assert fault.times == 0
    assert np.array_equal(raster.data[0], NORTH[0].pixels[0])


def test_files_to_which_items_on_disk_link_are_read_again(scenes: Path, tmp_path: Path) -> None:
    with StacServer(folders={"files": scenes}).running() as server:
        item = json.loads((scenes / "north-1/north-1.json").read_text())
        for asset in item["assets"].values():
            name = asset["href"].removeprefix("./")
            asset["href"] = f"{server.url}/files/north-1/{name}"
        (tmp_path / "north-1.json").write_text(json.dumps(item))
        server.faults = [Fault("tif$", "html", times=2)]
        raster = LocalProvider(tmp_path).fetch(GRID, temporal=None, sensor=SENSOR)
    assert server.faults[0].times == 0
    assert raster.data.shape == (3, 20, 20)


REQUESTS: dict[str, Callable[[str, Patience], object]] = {
    "a search": lambda url, patience: StacProvider(url, patience=patience).check_sensor(SENSOR),
    "a file": lambda url, patience: patience.persist(
        lambda: read_header(f"{url}/B4.tif"), passes=tried_again(), what=url
    ),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("answer", [silent, dripping], ids=["nothing", "drops"])
def test_one_clock_ends_all_tries(
    answer: Answer, request_of: Callable[[str, Patience], object]
) -> None:
    """Single reads would wait for a minute each, and drops would never end."""
    with answering(answer) as (url, _):
        began = time.monotonic()
        with pytest.raises(ProviderError, match="did not answer completely within 0.5 s") as info:
            request_of(url, Patience(timeout_s=0.5))
        assert time.monotonic() - began < 30
    assert info.value.transient
    assert "HTTPConnectionPool" not in str(info.value)


def test_an_endless_answer_is_not_kept_in_memory() -> None:
    with (
        answering(endless) as (url, _),
        pytest.raises(ProviderError, match="more than 100 MB") as info,
    ):
        StacProvider(url).check_sensor(SENSOR)
    assert not info.value.transient


def test_the_last_failure_is_told_when_the_time_ends() -> None:
    tries = itertools.count()

    def request() -> None:
        if next(tries):
            threading.Event().wait(60)
        raise ProviderError("busy", transient=True)

    with pytest.raises(ProviderError, match="^busy$"):
        replace(QUICK, timeout_s=0.5).persist(request)


def test_no_wait_goes_beyond_the_time() -> None:
    tries = []

    def request() -> None:
        tries.append(0)
        raise ProviderError("busy", transient=True, retry_after_s=100)

    with pytest.raises(ProviderError, match="^busy$"):
        Patience(timeout_s=99).persist(request)
    assert len(tries) == 1
