"""What a run leaves behind: no commands to a terminal, no open end, no rest, no secret."""

from __future__ import annotations

import copy
import gc
import json
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from rs_embed import PointBuffer, iter_embeddings
from rs_embed.addresses import shown_path
from rs_embed.cli import main
from rs_embed.providers.sample import CENTRE
from rs_embed.testing.providers import write_contract_scenes
from tests.processes import errors_of, line_of, running
from tests.stac_server import StacServer
from tests.threads import at_work, passing

pytestmark = pytest.mark.fault

LON, LAT = CENTRE
NORTH = ["--lon", "15.0", "--lat", "60.0"]
# A title for the window, a cleared screen, a C1 command, DEL, and letters that run backwards.
HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b31m\x7f\u202egnp\u2066"
COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SUMMER = ["--start", "2023-01-01", "--end", "2024-01-01"]


@pytest.fixture
def rs_embed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command; it returns exit code, output and errors."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rs-embed", *args])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            except Exception as exc:  # noqa: BLE001  # as the interpreter does
                sys.excepthook(type(exc), exc, exc.__traceback__)
                code = 1
        return (code, *capfd.readouterr())

    return run


# --- terminals -----------------------------------------------------------------------------


def of_a_server(folder: Path) -> list[str]:
    return ["inspect", *NORTH, "--buffer-m", "640", "--backend", "stac", *SUMMER]


def of_an_item(folder: Path) -> list[str]:
    scenes = write_contract_scenes(folder / "scenes")
    for path in scenes.glob("*/*.json"):
        item = json.loads(path.read_text())
        path.write_text(json.dumps({**item, "id": f"{item['id']}{HOSTILE}"}))
    west, south, *_ = item["bbox"]
    return ["inspect", "--lon", str(west + 0.003), "--lat", str(south + 0.003), "--buffer-m", "100",
            "--local", str(scenes), *SUMMER]  # fmt: skip


def of_a_place(folder: Path) -> list[str]:
    (folder / "places.csv").write_text(f"id,lon,lat\n{HOSTILE},0,0\nnear,{LON},{LAT}\n")
    return ["batch", str(folder / "places.csv"), "--buffer-m", "640", "--backend", "sample",
            "-o", str(folder / "out.npz")]  # fmt: skip


def of_places_that_repeat(folder: Path) -> list[str]:
    (folder / "places.csv").write_text("id,lon,lat\n" + f"{HOSTILE},0,0\n" * 2)
    return ["batch", str(folder / "places.csv"), "--buffer-m", "640", "-o", str(folder / "o.npz")]


def of_an_archive(folder: Path) -> list[str]:
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("index.csv", f"path,class,split\n{HOSTILE}.png,forest,train\n")
        archive.writestr(f"{HOSTILE}.png", b"no image")
    return ["evaluate", str(folder / "images.zip"), "--gsd-m", "10"]


def of_a_file(folder: Path) -> list[str]:
    path = folder / f"a{HOSTILE}\nb.tif"
    path.write_text("no image")
    return ["inspect", "--imagery", str(path)]


def of_bands(folder: Path) -> list[str]:
    with rasterio.open(
        folder / "bands.tif", "w", driver="GTiff", count=4, height=64, width=64, dtype="uint16",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 4e5, 0, -10, 52e5),
    ) as file:  # fmt: skip
        file.write(np.full((4, 64, 64), 900, np.uint16))
        file.descriptions = [f"band{HOSTILE.replace(chr(7), '')}{n}" for n in range(4)]
    return ["inspect", "--imagery", str(folder / "bands.tif")]


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[str]:
    """The address of a server that answers everything with an error of its own words."""

    class Hostile(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{HOSTILE} {'long ' * 10_000}".encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


TEXTS = (
    of_a_server, of_an_item, of_a_place, of_places_that_repeat, of_an_archive, of_a_file, of_bands
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_text_of_others_is_no_command_to_a_terminal(
    text: Callable[[Path], list[str]], more: list[str], tmp_path: Path, answers: str,
    rs_embed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RS_EMBED_STAC", answers)
    _, out, errors = rs_embed(*text(tmp_path), "--variant", "tiny", *more)
    assert re.search(r"\\(u00|x)[19]b", out + errors), out + errors  # it is shown
    assert not COMMANDS.search(out + errors), out + errors
    assert len(errors) < 2000
    if more and out:  # JSON reads back as it was
        assert HOSTILE[:4] in json.dumps(json.loads(out), ensure_ascii=False).encode().decode(
            "unicode_escape"
        )


# --- two processes at one output -----------------------------------------------------------

RIVAL = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from rs_embed.errors import ExportError
    from rs_embed.files.writing import written
    from rs_embed.runs.journal import JournalResult
    from rs_embed.runs.run import DurableRun

    own, rounds, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    for number in range(rounds):
        sys.stdin.readline()  # both begin at once
        keys = [str(key) for key in range(6)]
        try:
            run = DurableRun(out, {"own": own}, keys, items=("k", "ks"), overwrite=True)
            with run:
                for key in run.fresh:
                    run.keep([JournalResult(key, np.full(1, own, "f4"))], shared={"own": own})
                text = " ".join(str(int(result.vector[0])) for result in run.results())
                with written(out) as partial:
                    partial.write_text(text)
                run.finished(disposable=True)
            print("won", flush=True)
        except ExportError as exc:
            print(exc, flush=True)
"""


def test_two_processes_that_overwrite_one_output_take_turns(
    tmp_path: Path, often: Callable[[int, int], int], tell: Callable[[str], None]
) -> None:
    rounds, out = often(20, 200), tmp_path / "out.txt"
    code = textwrap.dedent(RIVAL)
    with ExitStack() as stack:
        rivals = [
            stack.enter_context(
                running("-c", code, str(n), str(rounds), str(out), stdin=subprocess.PIPE)
            )
            for n in (1, 2)
        ]
        for _ in range(rounds):
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write("go\n")
                rival.stdin.flush()
            ends = [line_of(rival).strip() for rival in rivals]
            lost = {end for end in ends if end != "won"}
            assert "won" in ends, ends
            assert all("out.txt.partial is in use by another process" in end for end in lost), lost
            assert out.read_text() in ("1 1 1 1 1 1", "2 2 2 2 2 2")
            assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    tell(f"two processes overwrite one output at once, {rounds} times: one at a time, none lost")


# --- finished outputs ----------------------------------------------------------------------

AREA = ["--lon", str(LON), "--lat", str(LAT), "--buffer-m", "640"]
OUTPUTS = {
    "vectors.npz": ["batch", "{folder}/places.csv", "--buffer-m", "640"],
    "map.zarr": ["map", *AREA],
    "map.tif": ["map", *AREA, "--dtype", "int8"],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_same_command_on_its_finished_output_is_a_success(
    name: str, tmp_path: Path, checkpoint: Path, rs_embed: Callable[..., tuple[int, str, str]]
) -> None:
    shutil.copytree(checkpoint, tmp_path / "weights")
    (tmp_path / "places.csv").write_text(f"id,lon,lat\na,{LON},{LAT}\n")
    command = [part.format(folder=tmp_path) for part in OUTPUTS[name]]
    command += ["-o", str(tmp_path / name), "--backend", "sample"]
    command += ["--weights", str(tmp_path / "weights")]

    def state() -> list[tuple[str, int]]:
        return sorted((str(p), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file())

    code, out, errors = rs_embed(*command, "--json")
    assert code == 0, errors
    first, before = json.loads(out), state()
    code, out, _ = rs_embed(*command, "--json")
    again = json.loads(out)
    assert (code, again["finished_before"], first["finished_before"]) == (0, True, False)
    for key in first.keys() & {"file", "item", "places", "failed", "windows", "tokens",
                               "valid_tokens", "bytes", "encoding_error"}:  # fmt: skip
        assert again[key] == first[key], key
    assert "already finished" in rs_embed(*command)[1]
    for change, difference in {
        ("--display", "visual"): 'options.display was "reflectance", is now "visual"',
        ("--buffer-m", "660"): "was 1 places" if name == "vectors.npz" else "area was",
    }.items():
        code, _, errors = rs_embed(*command, *change)
        assert code == 1
        assert f"{name} exists already and is finished, with another request" in errors
        assert difference.replace("was 1", 'was "1') in errors
    weights = tmp_path / "weights" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1  # a little of a number
    weights.write_bytes(content)
    before = [entry for entry in before if "weights" not in entry[0]]
    code, _, errors = rs_embed(*command)
    assert (code, "weights_sha256 was" in errors) == (1, True), errors
    assert [entry for entry in state() if "/weights/" not in entry[0]] == before
    assert rs_embed(*command, "--overwrite")[0] == 0


# --- secrets -------------------------------------------------------------------------------

SIGNED = "?sv=1&sig=HUSH&X-Amz-Signature=HUSH&token=HUSH"
SECRET = re.compile(rb"HUSH|hunter2")
VISUAL = ["--variant", "tiny", "--display", "visual"]
# What is called, what is done to the hrefs of the items, and the exit code.
DOORS: dict[str, tuple[list[str], str, int]] = {
    "an item": (["inspect", "{place}"], "", 0),
    "an item as JSON": (["inspect", "{place}", "--json"], "", 0),
    "an item that is linked inside": (["inspect", "{place}"], "/vsicurl/", 1),
    "an item by another protocol": (["inspect", "{place}"], "ftp", 1),
    "an item whose file is missing": (["--debug", "inspect", "{place}"], "404", 1),
    "an unfinished batch": (["batch", "{csv}", "{stac}", "-o", "{out}.npz",
                             "--on-error", "raise"], "", 1),
    "a batch": (["batch", "{csv}", "{stac}", "-o", "{out}.npz"], "", 1),
    "a map": (["map", "{place}", "-o", "{out}.tif"], "", 0),
    "a file": (["embed", "--imagery", "{web}/a.tif{query}", "-o", "{out}.npz"], "", 0),
    "a grid": (["embed", "--imagery", "{web}/a.tif{query}", "-o", "{out}.tif", "--output", "grid"],
               "", 0),
    "a map of a file": (["map", "--imagery", "{web}/a.tif{query}", "-o", "{out}.zarr"], "", 0),
    "a file that is missing": (["--debug", "inspect", "--imagery", "{web}/b.tif{query}"], "", 1),
    "a host that refuses": (["inspect", "--imagery", "http://u:hunter2@127.0.0.1:1/a.tif{query}"],
                            "", 1),
    "the settings": (["doctor"], "", 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StacServer]:
    """A catalogue behind a password, whose hrefs are signed, and a file."""
    scenes = write_contract_scenes(tmp_path_factory.mktemp("scenes"))
    with rasterio.open(
        scenes / "a.tif", "w", driver="GTiff", count=3, height=96, width=96, dtype="uint16",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 4e5, 0, -10, 52e5),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(500, 3000, (3, 96, 96), np.uint16))
        file.descriptions = ("B4", "B3", "B2")
    with StacServer().running() as server:
        server.add(scenes)
        yield server


@pytest.mark.parametrize("door", DOORS)
def test_secrets_of_addresses_are_neither_written_nor_shown(
    door: str, tmp_path: Path, signed: StacServer, monkeypatch: pytest.MonkeyPatch,
    rs_embed: Callable[..., tuple[int, str, str]],
) -> None:  # fmt: skip
    command, how, expected = DOORS[door]
    home = signed.url.replace("//", "//u:hunter2@")
    monkeypatch.setenv("RS_EMBED_STAC", home)
    west, south, east, north = next(iter(signed.items.values()))[0]["bbox"]
    lon, lat = str((west + east) / 2), str((south + north) / 2)
    (tmp_path / "places.csv").write_text(f"id,lon,lat\na,{lon},{lat}\nb,0,0\n")
    monkeypatch.setattr(signed, "items", copy.deepcopy(signed.items))
    for item in (item for items in signed.items.values() for item in items):
        for asset in item["assets"].values():
            href = asset["href"].replace("//", "//u:hunter2@") + SIGNED
            href = href.replace(".tif?", "-missing.tif?") if how == "404" else href
            asset["href"] = f"/vsicurl/{href}" if how == "/vsicurl/" else href
            if how == "ftp":
                asset["href"] = href.replace("http:", "ftp:")
    stac = ["--buffer-m", "100", "--backend", "stac", *SUMMER]
    parts = {"{stac}": stac, "{place}": ["--lon", lon, "--lat", lat, *stac]}
    words = {"csv": tmp_path / "places.csv", "out": tmp_path / "out", "web": f"{home}/files",
             "query": SIGNED}  # fmt: skip
    args = [text for part in command for text in parts.get(part) or [part.format(**words)]]
    code, out, errors = rs_embed(*args, *([] if door == "the settings" else VISUAL))
    assert code == expected, out + errors
    assert not SECRET.search((out + errors).encode()), out + errors
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not SECRET.search(path.read_bytes()), path
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                assert not any(SECRET.search(archive.read(name)) for name in archive.namelist())
    assert door != "an unfinished batch" or (tmp_path / "out.npz.partial").exists()


# --- abandoned work, and disks that are full -----------------------------------------------


@pytest.mark.parametrize("how", ["forgotten", "closed", "an error of the consumer", "Ctrl-C"])
def test_an_abandoned_iterator_ends_its_threads(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    before = at_work()

    def consume() -> None:
        places = (PointBuffer(LON, LAT + 1e-5 * n, 640) for n in range(10_000))
        made = iter_embeddings(
            "scalemae", spatials=places, backend="sample", variant="tiny", input_prep="tile",
            cache=tmp_path / "cache",
        )  # fmt: skip
        next(made)
        assert len(at_work() - before) > 1
        if how == "closed":
            made.close()
        elif how != "forgotten":
            raise (KeyboardInterrupt if how == "Ctrl-C" else ValueError)

    with suppress(KeyboardInterrupt, ValueError):
        consume()
    gc.collect()
    for thread in passing() - before:
        thread.join(10)  # idle ones end soon
    assert not passing() - before
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".patch"]


FULL = """
    import resource, sys
    from rs_embed.cli import main
    most, *command = sys.argv[1:]
    sys.argv = ["rs-embed", *command]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
    main()
"""
# What is written, and the most bytes of a file: less than it takes.
WRITTEN = {
    "g.tif": (["embed", *AREA, "--output", "grid"], 3000),
    "m.zarr": (["map", *AREA], 40_000),
    "b.npz": (["batch", "{csv}", "--buffer-m", "640"], 10_000),
    "seen.png": (["inspect", *AREA], 3000),
}


@pytest.mark.parametrize(
    "name",
    [
        "b.npz",
        "g.tif",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("m.zarr", "seen.png")),
    ],
)
def test_a_full_disk_leaves_nothing_that_is_not_used_again(name: str, tmp_path: Path) -> None:
    command, most = WRITTEN[name]
    (tmp_path / "places.csv").write_text(f"id,lon,lat\na,{LON},{LAT}\n")
    words = [part.format(csv=tmp_path / "places.csv") for part in command]
    option = "--png" if name == "seen.png" else "-o"
    out = tmp_path / "out" / name
    out.parent.mkdir()
    common = [*words, "--backend", "sample", *VISUAL, option, str(out)]
    with running("-c", textwrap.dedent(FULL), str(most), *common) as process:
        errors = errors_of(process)
        assert process.returncode == 1, errors
    assert "error: cannot write" in errors
    left = {path.name for path in out.parent.iterdir()}
    assert left <= {f"{name}.partial", f"{name}.partial-journal"}, left


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/data/a?b #1.tif", "/data/a?b #1.tif"),
        ("s3://bucket/k.tif", "s3://bucket/k.tif"),
        ("https://u:pw@h/a b.tif?sig=1#x", "https://h/a b.tif"),
        ("https://h?sig=1", "https://h"),
        ("/vsicurl/https://u:pw@h/a.tif?sig=1", "/vsicurl/https://h/a.tif"),
        ("/vsicurl?url=http%3A%2F%2Fu%3Apw%40h%2Fa.tif%3Fsig%3D1", "/vsicurl?..."),
        ('NETCDF:"https://u:pw@h/a.nc?sig=1":red', 'NETCDF:"https://h/a.nc":red'),
        ("zip://https://u:pw@h/a.zip?sig=1!b.tif", "zip://https://h/a.zip!b.tif"),
    ],
)
def test_names_are_shown_without_secrets(path: str, shown: str) -> None:
    assert shown_path(path) == shown
