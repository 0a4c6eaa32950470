"""CUDA cards: their names, one process for each, memory that runs out, and what bfloat16 rounds.

All of it on machines without a card: what only a card can run is not tested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rs_embed import (
    FetchSpec,
    ModelError,
    SpecError,
    UnknownNameError,
    embed_area,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    load_model,
    open_map,
    plan_area,
)
from rs_embed.embedding.pickling import pickled
from rs_embed.models.base import ModelDescription, Option, Tokens
from rs_embed.models.devices import cards_of, check_card
from rs_embed.models.scalemae.config import VARIANTS
from rs_embed.models.scalemae.network import ScaleMae, gsd_positions
from rs_embed.runs.engines import Engine
from rs_embed.runs.processes import ProcessPool
from rs_embed.runs.shards import Shard
from rs_embed.settings import Settings
from tests.conftest import small_network
from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan
from tests.visible_cards import VisibleCards

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
TINY: dict[str, Any] = {"variant": "tiny", "image_size": 64}
BOX = (-75.62, 37.69, -75.61, 37.70)
NO_CARD = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")


def one(**how: Any) -> Any:
    pixels = np.full((3, 64, 64), 900, np.uint16)
    return get_embedding("scalemae", input_chw=pixels, fetch=FetchSpec(scale_m=10), **TINY, **how)


def table(folder: Path, **how: Any) -> Any:
    places = folder / "places.csv"
    places.write_text("id,lon,lat\na,-75.6156,37.6942\n")
    out = folder / "out.parquet"
    return export_batch(
        "scalemae", places, output=out, buffer_m=320, backend="sample", **TINY, **how
    )


def area(folder: Path, **how: Any) -> Any:
    out = folder / "out.tif"
    return embed_area("scalemae", spatial=BOX, output=out, backend="sample", **TINY, **how)


# Who is called; the device and more; the error and what it says.
REFUSED: list[tuple[str, Callable[..., Any], dict[str, Any], type[Exception], str]] = [
    (
        "not a number",
        one,
        {"device": "cuda:x"},
        UnknownNameError,
        "'cuda:x', expected one of .*, cuda:N,",
    ),
    ("a minus", one, {"device": "cuda:-1"}, UnknownNameError, "'cuda:-1'"),
    ("a list of kinds", one, {"device": "cpu,cuda"}, SpecError, "different CUDA cards: 'cuda:0,1'"),
    ("a list of kinds", table, {"device": "cpu,cuda"}, SpecError, "different CUDA cards"),
    ("a list of kinds", area, {"device": ["cpu", "cuda:0"]}, SpecError, "different CUDA cards"),
    ("a card twice", table, {"device": "cuda:0,0"}, SpecError, "got device='cuda:0,0'"),
    ("nothing after the comma", table, {"device": "cuda:0,"}, SpecError, "got device='cuda:0,'"),
    ("cards for one call", one, {"device": "cuda:0,1"}, SpecError, "export_batch and embed_area"),
    ("fewer workers", table, {"device": "cuda:0,1", "workers": 1}, SpecError, "the 2 cards of"),
]
ABSENT: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("a card", one, {"device": "cuda:1"}),
    ("the object of a card", one, {"device": torch.device("cuda", 1)}),
    ("a card", table, {"device": "cuda:1"}),
    ("cards", table, {"device": "cuda:1,2"}),
    ("cards", area, {"device": ["cuda:1", "cuda:2"]}),
]


@pytest.mark.parametrize(("who", "how", "error", "says"), [row[1:] for row in REFUSED])
def test_bad_names_are_refused(
    tmp_path: Path, who: Callable[..., Any], how: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        who(**({} if who is one else {"folder": tmp_path}), **how)
    assert not list(tmp_path.glob("out*"))


@NO_CARD
@pytest.mark.parametrize(("who", "how"), [row[1:] for row in ABSENT])
def test_cards_that_are_not_there(tmp_path: Path, who: Callable[..., Any], how: Any) -> None:
    with pytest.raises(ModelError, match="got device='cuda:1', which is not available"):
        who(**({} if who is one else {"folder": tmp_path}), **how)
    assert not list(tmp_path.glob("out*"))


def test_other_calls_take_one_device() -> None:
    with pytest.raises(SpecError, match="where one process runs the model"):
        load_model("scalemae", device="cuda:0,1", **TINY)
    with pytest.raises(SpecError, match="different CUDA cards"):
        plan_area("scalemae", spatial=(0, 0, 1, 1), device="cuda:0,mps")


def test_ray_gives_cards_itself() -> None:
    pytest.importorskip("ray")
    for device in ("cuda:1", "cuda:0,1"):
        with pytest.raises(SpecError, match="gives each worker a card of its own; leave device"):
            Engine("ray", device=device)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:1, cuda:0", ("cuda:1", "cuda:0")),
        (["cuda:3", torch.device("cuda", 1)], ("cuda:3", "cuda:1")),
        (["cuda:3"], ()),
        ("cuda:1", ()),
        ("auto", ()),
        (None, ()),
    ],
)
def test_names_of_cards(device: Any, expected: tuple[str, ...]) -> None:
    assert cards_of(device) == expected


@pytest.mark.parametrize(
    ("name", "count", "says"),
    [
        ("cuda:1", 2, None),
        ("cuda", 2, None),
        ("cuda:2", 2, r"one of the 2 CUDA devices that PyTorch finds \(cuda:0, cuda:1\)"),
        ("cuda:7", 1, r"one of the 1 .* \(cuda:0\)"),
    ],
)
def test_only_cards_that_exist(name: str, count: int, says: str | None) -> None:
    if says is None:
        check_card(name, count)
        return
    with pytest.raises(ModelError, match=f"got device='{name}', expected {says}"):
        check_card(name, count)


@pytest.mark.parametrize(
    ("stated", "cards", "seen"),
    [
        (None, ("cuda:0", "cuda:2"), ["0", "2", "0"]),
        ("4,6,7", ("cuda:1", "cuda:2"), ["6", "7", "6"]),
        ("GPU-1b, GPU-9c", ("cuda:1",), ["GPU-9c", "GPU-9c"]),
        ("5", (), ["5", "5"]),
    ],
)
def test_each_process_sees_one_card(
    monkeypatch: pytest.MonkeyPatch, stated: str | None, cards: Any, seen: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if stated is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", stated)
    found: dict[int, Any] = {}
    with ProcessPool(pickled(VisibleCards()), len(seen), cards) as pool:
        for lane in range(len(seen)):
            pool.submit(lane, Shard(("key",), (None,)))
        while len(found) < len(seen):
            found.update({lane: results for lane, _, results in pool.wait()})
    assert [found[lane] for lane in range(len(seen))] == [[card] for card in seen]


FAILURES: Mapping[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."),
    "numpy": MemoryError,
    "other": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
}


@dataclass
class ShortEncoder(CoordinateEncoder):
    """Fails for more pixels than fit; the log has every call."""

    fits_px: float = np.inf
    how: str = "cuda"

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        if pixels[:, 0].size > self.fits_px:
            self.log.append(pixels.shape)
            raise FAILURES[self.how]()
        return super().encode(pixels, input_res_m)


@dataclass(frozen=True)
class ShortPlan(CoordinatePlan):
    fits_px: float = np.inf
    how: str = "cuda"
    slots: int = 1

    def load(self) -> ShortEncoder:
        return ShortEncoder(self.image_size, ShortModel.log, fits_px=self.fits_px, how=self.how)


class ShortModel(CoordinateModel):
    log: ClassVar[list[tuple[float, ...]]] = []
    description: ModelDescription = replace(
        CoordinateModel.description,
        id="short",
        options=(
            Option("fits_px", "pixels that fit", "all", type="number", recorded_as=()),
            Option("how", "how it fails", "cuda", tuple(FAILURES), recorded_as=()),
            Option("slots", "passes at once", "1", type="integer", recorded_as=()),
        ),
    )

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> ShortPlan:
        return ShortPlan(64, 64, np.inf, **options)


MODEL = ShortModel()


@pytest.fixture
def short(install: Callable[..., Path]) -> list[tuple[float, ...]]:
    install("short", "[rs_embed.models]\nshort = tests.test_field_gpu:MODEL\n")
    ShortModel.log.clear()
    return ShortModel.log


def many(count: int, **how: Any) -> Any:
    rng = np.random.default_rng(8)
    arrays = list(rng.integers(300, 3000, (count, 3, 64, 64), dtype=np.uint16))
    return get_embeddings_batch("short", input_chws=arrays, fetch=FetchSpec(scale_m=10), **how)


# What fits; how it fails; passes at once; images of each call.
SHORT: list[tuple[float, str, int, list[int]]] = [
    (8, "cuda", 1, [8, 8, 2]),
    (4, "cuda", 1, [8, 4, 4, 4, 4, 2]),
    (3, "cuda", 1, [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2]),
    (1, "cuda", 1, [8, 4, 2, *[1] * 18]),
    (4, "mps", 1, [8, 4, 4, 4, 4, 2]),
    (4, "cublas", 1, [8, 4, 4, 4, 4, 2]),
    (4, "numpy", 1, [8, 4, 4, 4, 4, 2]),
    (8, "cuda", 2, [8, 8, 2]),
    (2, "cuda", 2, []),
]


@pytest.mark.parametrize(("fits", "how", "slots", "calls"), SHORT)
def test_memory_that_runs_out_costs_no_place(
    short: list[tuple[float, ...]], fits: float, how: str, slots: int, calls: list[int]
) -> None:
    expected = many(18)
    short.clear()
    made = many(18, fits_px=fits * 64 * 64, how=how, slots=slots)
    for ours, alone in zip(made, expected, strict=True):
        np.testing.assert_allclose(ours.data, alone.data, atol=1e-4)
        assert ours.meta["fingerprint"] == alone.meta["fingerprint"]
    assert not calls or sorted(call[0] for call in short) == sorted(calls)


def test_it_is_logged_once(
    short: list[tuple[float, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rs_embed"):
        many(18, fits_px=4 * 64 * 64)
    (record,) = [one for one in caplog.records if "do not fit" in one.message]
    assert record.message == (
        "8 images of 64 x 64 px do not fit the memory of the device at once: 4 do now"
    )


def test_one_that_does_not_fit_alone_fails_alone(short: list[tuple[float, ...]]) -> None:
    small, large = (np.full((3, side, side), 900, np.uint16) for side in (64, 128))
    for array in (small, large):
        array[:, 5:20, 5:20] = 500
    how: dict[str, Any] = {"fits_px": 2 * 64 * 64, "input_prep": "tile", "on_error": "return"}
    tile: dict[str, Any] = {"input_chws": [small, large, small], "fetch": FetchSpec(scale_m=10)}
    made = get_embeddings_batch("short", **tile, **how)
    assert not any(isinstance(one, Exception) for one in made)  # tiles of 64 px fit
    how["fits_px"] = 64 * 64 - 1
    for failed in get_embeddings_batch("short", **tile, **how):
        assert isinstance(failed, ModelError)
        assert "one image of 64 x 64 px does not fit the memory of the device (CUDA" in str(failed)


def test_other_failures_are_raised(short: list[tuple[float, ...]]) -> None:
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        many(3, fits_px=1, how="other")


@pytest.mark.parametrize("slots", [1, 2])
def test_a_map_is_the_same(
    short: list[tuple[float, ...]], coordinate_map_scene: Path, tmp_path: Path, slots: int
) -> None:
    def made(name: str, **how: Any) -> Any:
        out = tmp_path / name
        embed_area("short", imagery=coordinate_map_scene, output=out, acquired="2022-07-01", **how)
        with open_map(out) as opened:
            return opened.values

    whole = made("whole.tif")
    assert np.array_equal(made("short.tif", fits_px=3 * 64 * 64, slots=slots), whole)
    assert 2 in {call[0] for call in short}


@pytest.fixture
def coordinate_map_scene(write_scene: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(4)
    return write_scene(rng.integers(300, 3000, (3, 256, 320), dtype=np.uint16))


# What leaves each part of the network under autocast, and what the residual sum is kept in.
DTYPES = [
    ("patch_embed", torch.bfloat16),
    ("blocks.0.norm1", torch.float32),
    ("blocks.0.attn.qkv", torch.bfloat16),
    ("blocks.0.attn", torch.bfloat16),
    ("blocks.0.norm2", torch.float32),
    ("blocks.0.mlp.fc1", torch.bfloat16),
    ("blocks.0.mlp", torch.bfloat16),
    ("blocks.0", torch.float32),
    ("blocks.1", torch.float32),
    ("norm", torch.float32),
]


def test_what_bfloat16_rounds() -> None:
    network = small_network()
    found: dict[str, torch.dtype] = {}
    for name, _ in DTYPES:
        network.get_submodule(name).register_forward_hook(
            lambda *call, name=name: found.__setitem__(name, call[2].dtype)
        )
    image, gsd = torch.randn(2, 3, 64, 64), torch.tensor([10.0, 0.3])
    full = gsd_positions(4, 4, 48, gsd)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        low = network(image, gsd).patches
        assert torch.equal(gsd_positions(4, 4, 48, gsd), full)
        assert network.embed(image, gsd).dtype == torch.float32  # patches with positions
    assert found == dict(DTYPES)
    with torch.inference_mode():
        exact = network(image, gsd).patches
    cosine = torch.nn.functional.cosine_similarity(low.flatten(0, 2), exact.flatten(0, 2))
    assert low.dtype == torch.float32
    assert cosine.min() > 0.999


@pytest.mark.parametrize(("variant", "side"), [("tiny", 64), ("small", 48)])
def test_patches_as_a_product(variant: str, side: int) -> None:
    network = ScaleMae(VARIANTS[variant])
    network.initialise(2)
    image = torch.randn(2, 3, side, 2 * side)
    embed = network.patch_embed
    torch.testing.assert_close(embed.as_product(image), embed.proj(image), rtol=1e-5, atol=1e-5)
