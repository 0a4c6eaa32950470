"""Pretraining: the recipe, the tiles, the views, the objective, and runs that resume exactly."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from rs_embed import FetchSpec, OutputSpec, get_embedding
from rs_embed.datasets.samples import Sample
from rs_embed.errors import (
    CheckpointError,
    DatasetError,
    ExportError,
    GsdWarning,
    ImageryWarning,
    MissingDependencyError,
    RsEmbedWarning,
    SpecError,
    TrainingError,
)
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.training.colour import altered
from rs_embed.training.config import (
    ColourConfig,
    ContrastConfig,
    DataConfig,
    DecoderConfig,
    DenseConfig,
    OptimiserConfig,
    PretrainConfig,
    RunConfig,
    SourceConfig,
    ViewConfig,
    learning_rate,
)
from rs_embed.training.contrast import dense_info_nce, info_nce, same_ground
from rs_embed.training.objective import Objective
from rs_embed.training.packing import packed, tiles_of
from rs_embed.training.pretraining import pretrain
from rs_embed.training.recipe import read_recipe
from rs_embed.training.state import Training, read_state
from rs_embed.training.views import Crops, Pyramid, random_masks, take
from tests.conftest import python_environment
from tests.processes import WAIT_S, completed, errors_of, line_of, running

MAIN = "from rs_embed.cli import main; main()"
RECIPE = """
name = "small"
initial = "weights"
[data]
tile_size = 32
sources = [{ path = "images", gsd_m = 10 }]
[network]
embed_dim = 16
depth = 1
num_heads = 2
patch_size = 8
[decoder]
embed_dim = 16
depth = 1
num_heads = 2
[views]
sides = [16, 32]
shares = [1, 2]
[optimiser]
steps = 6
batch_size = 4
[run]
folder = "run"
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        coarse = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40)).save(folder / f"{number}.png")
    return folder


def recipe(images: Path, **changed: Any) -> PretrainConfig:
    whole = PretrainConfig(
        name="small",
        data=DataConfig((SourceConfig(str(images), gsd_m=10.0),), tile_size=32),
        run=RunConfig(str(images.parent / "run"), device="cpu", log_steps=1, picture_steps=4),
        optimiser=OptimiserConfig(steps=6, batch_size=4, warmup_steps=2),
        network=NetworkConfig(16, 1, 2, 8),
        views=ViewConfig((16, 32), (1.0, 2.0)),
        decoder=DecoderConfig(16, 1, 2),
        contrast=ContrastConfig(weight=0.5, embed_dim=8, brightness=0.1),
    )
    return replace(whole, **changed)


def stepped(config: PretrainConfig, steps: int, folder: str = "run", **options: Any) -> Path:
    """Train to ``steps`` in a folder beside the images; return the folder."""
    place = Path(config.run.folder).with_name(folder)
    config = replace(config, run=replace(config.run, folder=str(place)))
    config = replace(config, optimiser=replace(config.optimiser, **options))
    report = pretrain(config.with_steps(steps), progress=False)
    assert report.step == steps
    return place


# The recipe


def test_a_recipe_is_read_and_its_paths_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(RECIPE)
    config = read_recipe(tmp_path / "a.toml")
    assert config.network == NetworkConfig(16, 1, 2, 8)
    assert config.data.sources[0].path == str(tmp_path / "images")
    assert (config.run.folder, config.initial) == (str(tmp_path / "run"), str(tmp_path / "weights"))
    assert config.views.shares == (1.0, 2.0)
    assert config.contrast.weight == 0  # as published
    elsewhere = read_recipe(tmp_path / "a.toml", data=tmp_path / "data")
    assert elsewhere.data.sources[0].path == str(tmp_path / "data" / "images")


@pytest.mark.parametrize(
    "name", ["scalemae-tiny", "MVRL/scalemae-vitlarge-800", "owner/name@refs", "runs/first"]
)
def test_a_recipe_may_begin_from_the_hub_or_from_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "a.toml").write_text(RECIPE.replace('"weights"', f'"{name}"'))
    expected = str(tmp_path / name) if name == "runs/first" else name
    assert read_recipe(tmp_path / "a.toml").initial == expected


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("steps = 6", "steps = 0", "steps=0, expected at least 1"),
        ("steps = 6", "", "optimiser.steps is missing, and has no default"),
        ("steps = 6", "steps = true", "got optimiser.steps = True, expected a valid integer"),
        ("steps = 6", "steps = 6.0", "got optimiser.steps = 6.0, expected a valid integer"),
        ("steps = 6", "setps = 6", "unknown key of .optimiser. 'setps'.* did you mean 'steps'"),
        ("[data]", "[dada]", "unknown key of .the file. 'dada'.* did you mean 'data'"),
        ("sides = [16, 32]", "sides = [16, 24]", "views.sides=24, expected multiples of .* divide"),
        ("sides = [16, 32]", "sides = [8, 32]", "mask_ratio=0.75, expected to leave some"),
        ("shares = [1, 2]", "shares = [1]", "one number above 0 for each"),
        ("shares = [1, 2]", "crop_area = [0.5]", r"views.crop_area\[1\] is missing"),
        ("shares = [1, 2]", "crop_area = [0.1, 0.2, 1]", "crop_area = .* at most 2 items"),
        ("shares = [1, 2]", "crop_area = 1", "views.crop_area = 1, expected a valid array"),
        ("shares = [1, 2]", "shares = [1, true]", r"shares\[1\] = True, expected a valid number"),
        ("gsd_m = 10", "gsd_m = -1", "gsd_m=-1.0, expected a number above 0"),
        ("gsd_m = 10", "gsd_m = '10'", r"data.sources\[0\].gsd_m = '10', expected a valid number"),
        ("gsd_m = 10", "gsd = 10", r"key of .data.sources\[0\]. 'gsd'.* did you mean 'gsd_m'"),
        ('[{ path = "images", gsd_m = 10 }]', '["images"]', "'images', expected a table"),
        ("patch_size = 8", "patch_size = 8\ncls_token = 1", "cls_token = 1, expected a valid bool"),
        ('folder = "run"', 'folder = "run"\ndevice = "gpu"', "unknown device 'gpu'"),
        ("name =", "name", "is not TOML"),
        ('"small"', '"../small"', "name='../small', expected a folder's name"),
        ('"small"', "2020-01-01", "name = .*2020-01-01.*, expected a valid string"),
        ('"small"', '"pictures"', "name='pictures', expected a folder's name"),
        ("batch_size = 4", "batch_size = 0", "batch_size=0, expected at least 1"),
        ("batch_size = 4", "betas = [0.9, 1]", "betas=.0.9, 1.0., expected from 0 to below 1"),
        ("batch_size = 4", "weight_decay = nan", "weight_decay = nan, expected a finite number"),
        ("batch_size = 4", "clip_norm = inf", "clip_norm = inf, expected a finite number"),
        ("steps = 6", "steps = 6\naccumulate = 3", "accumulate=3, expected a divisor of"),
        ("sides = [16, 32]", "sides = [-16, 32]", "sides=.-16, 32., expected at least one, all"),
        ("patch_size = 8", "patch_size = 2", "patch_size=2, expected a multiple of 4"),
        ("patch_size = 8", "patch_size = 0", "a.toml: got NetworkConfig.* sizes of at least 1"),
        ('folder = "run"', 'folder = "run"\nseed = -1', "seed=-1, expected from 0"),
        ("[data]", "image_size = 0\n[data]", "image_size=0, expected a multiple of 8, or none"),
        (
            "batch_size = 4",
            "batch_size = 4\naccumulate = 4\n[contrast]\nweight = 1",
            "accumulate=4, expected parts of two tiles",
        ),
        (
            "batch_size = 4",
            "batch_size = 4\naccumulate = 4\n[dense]\nweight = 1",
            "accumulate=4, expected parts of two tiles",
        ),
        (
            "patch_size = 8",
            "patch_size = 8\ncls_token = false\n[contrast]\nweight = 1\npatches = false",
            "contrast.patches=False, expected true, as the network has no class token",
        ),
        ("shares = [1, 2]", "shares = [1, 2]\n[dense]\nweight = -1", "weight=-1.0, expected at"),
        ("shares = [1, 2]", "shares = [1, 2]\n[colour]\nhaze = -1", "haze=-1.0, expected at"),
        ('folder = "run"', 'folder = "run"\nsnapshot_steps = 0', "snapshot_steps=0, expected at"),
    ],
)
def test_an_invalid_recipe(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert RECIPE.count(old) == 1
    (tmp_path / "a.toml").write_text(RECIPE.replace(old, new))
    with pytest.raises(SpecError, match=says):
        read_recipe(tmp_path / "a.toml")


def test_a_recipe_needs_an_optional_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text(RECIPE)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(MissingDependencyError, match=r"reading a recipe needs .*'\.\[train\]'"):
        read_recipe(tmp_path / "a.toml")


def test_there_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read .*none.toml"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("name", ["scalemae-tiny", "scalemae-tiny-local"])
def test_the_recipes_that_ship_can_be_read(name: str) -> None:
    path = Path(__file__).parents[1] / "recipes" / f"{name}.toml"
    config = read_recipe(path)
    assert config.network == NetworkConfig(192, 12, 3, 8)
    assert not any("rufiji" in source.path for source in config.data.sources)  # GPL


def test_the_rate_rises_and_falls_as_a_cosine(images: Path) -> None:
    config = recipe(
        images, optimiser=OptimiserConfig(steps=110, learning_rate=2.0, warmup_steps=10)
    )
    assert learning_rate(config, 0) == pytest.approx(0.2)
    assert learning_rate(config, 9) == pytest.approx(2.0)
    assert learning_rate(config, 60) == pytest.approx(1.0)
    assert learning_rate(config, 110) == pytest.approx(0.0)


# The tiles


def test_tiles_hold_every_pixel_at_each_level() -> None:
    image = np.arange(70 * 100 * 3, dtype=np.int64).reshape(70, 100, 3).astype(np.uint8)
    tiles = list(tiles_of(Sample("a", image, 3.0, None, None), 32, 3))
    finest = [tile for tile, gsd_m in tiles if gsd_m == 3.0]
    assert len(finest) == 3 * 4
    assert np.array_equal(finest[0], image[:32, :32])
    assert np.array_equal(finest[-1], image[-32:, -32:])
    coarser = [tile for tile, gsd_m in tiles if gsd_m == 6.0]
    assert len(coarser) == 2 * 2
    cells = image[:64, :64].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(coarser[0] - cells).max() <= 0.5
    assert len(tiles) == 16  # 17 x 25 px hold no tile


def test_images_a_little_too_small_are_enlarged_with_their_gsd() -> None:
    tiles = list(tiles_of(Sample("a", np.zeros((30, 31, 3), np.uint8), 3.0, None, None), 32, 1))
    assert [(tile.shape, gsd_m) for tile, gsd_m in tiles] == [((32, 32, 3), 3.0 * 30 / 32)] * 2
    assert not list(tiles_of(Sample("a", np.zeros((28, 60, 3), np.uint8), 3.0, None, None), 32, 1))


def test_images_are_packed_once(images: Path, tmp_path: Path) -> None:
    config = recipe(images).data
    tiles = packed(config, tmp_path / "run")
    assert tiles.pixels.shape == (6 * 4, 3, 32, 32)
    first = np.asarray(Image.open(images / "0.png"))
    assert np.array_equal(tiles.pixels[0], first[:32, :32].transpose(2, 0, 1))
    assert set(tiles.gsd_m) == {10.0}
    before = (tmp_path / "run" / "tiles.u8").stat().st_mtime_ns
    assert packed(config, tmp_path / "run").digest == tiles.digest
    assert (tmp_path / "run" / "tiles.u8").stat().st_mtime_ns == before
    Image.fromarray(255 - first).save(images / "0.png")
    assert packed(config, tmp_path / "run").digest != tiles.digest


def test_sets_that_cannot_be_packed(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no tile of 64 x 64 px"):
        packed(replace(recipe(images).data, tile_size=64), tmp_path / "run")
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:99])
    with pytest.raises(DatasetError, match="3.png"):
        packed(recipe(images).data, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(SpecError, match="inside the source"):
        packed(recipe(images).data, images / "run")


def test_what_is_packed_stays_until_more_is_whole(images: Path, tmp_path: Path) -> None:
    config, folder = recipe(images).data, tmp_path / "run"
    digest = packed(config, folder).digest
    content = (images / "3.png").read_bytes()
    (images / "3.png").write_bytes(content[:99])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DatasetError, match="3.png"):
        packed(config, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (images / "3.png").write_bytes(content)
    assert packed(config, folder).digest == digest
    with (folder / "tiles.u8").open("r+b") as file:
        file.truncate(99)
    assert packed(config, folder).digest == digest
    assert len((folder / "tiles.u8").read_bytes()) == 6 * 4 * 3 * 32 * 32


def test_images_smaller_than_a_tile_are_told(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 40)).save(images / "few.png")
    with pytest.warns(ImageryWarning, match="smaller than a tile of 32 px: few.png"):
        assert len(packed(recipe(images).data, tmp_path / "run")) == 6 * 4


# The views


def test_the_gsd_follows_the_crop() -> None:
    """Pixels that store their own coordinates tell what a crop's pixels measure."""
    side, count = 32, 64
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float32)] * 2, indexing="ij")
    tiles = torch.stack([columns, rows, rows + columns]).expand(count, 3, side, side)
    gsd_m = torch.linspace(0.3, 10, count)
    uniform = torch.rand((4, count), generator=torch.Generator().manual_seed(0))
    cropped = Crops.of(uniform, (0.25, 1.0))
    crops, cropped_m = cropped.cut(tiles), gsd_m * cropped.kept
    inner = crops[:, :, 4:-4, 4:-4]  # away from the border, where pixels repeat
    across = (inner[:, :2, :, 1:] - inner[:, :2, :, :-1]).mean((2, 3))  # d(x, y) per column
    down = (inner[:, :2, 1:] - inner[:, :2, :-1]).mean((2, 3))
    for step in (across, down):
        assert torch.allclose(step.norm(dim=1) * gsd_m, cropped_m, rtol=1e-3)
    assert (across * down).sum(1).abs().max() < 1e-3
    turns = {
        tuple(torch.sign(a.round(decimals=2)).int().tolist()) for a in torch.hstack([across, down])
    }
    assert len(turns) == 8  # every symmetry of the square
    kept = cropped_m / gsd_m
    assert kept.min() >= 0.5
    assert kept.max() <= 1
    assert kept.max() - kept.min() > 0.4
    assert crops.min() >= 0  # nothing from outside the tile
    assert crops[:, :2].max() <= side - 1


def test_the_bands_are_the_whole_image() -> None:
    image = torch.randn(2, 3, 32, 32)
    pyramid = Pyramid.of(image, 32, 8)
    assert torch.allclose(pyramid.low + pyramid.high, image, atol=1e-6)
    flat = Pyramid.of(torch.full((1, 3, 32, 32), 2.0), 16, 8)
    assert torch.allclose(flat.low, torch.full((1, 3, 16, 16), 2.0))
    assert flat.high.abs().max() < 1e-6
    which = torch.tensor([[5, 0]])
    low, high = Pyramid.of(image[:1], 16, 8).patches(which, 4)
    assert torch.equal(high[0, 0], pyramid.high[0, :, 8:16, 8:16].flatten())  # row 1, column 1
    assert low.shape == (1, 2, 3 * 4 * 4)


def test_masks_hide_a_share_and_lose_nothing() -> None:
    visible, masked = random_masks(5, 16, 12, torch.Generator().manual_seed(0))
    assert visible.shape == (5, 4)
    assert torch.equal(
        torch.cat([visible, masked], 1).sort(1).values, torch.arange(16).expand(5, -1)
    )
    assert len({tuple(row.sort().values.tolist()) for row in visible}) == 5


SIDE, PER_SIDE, PAIRS = 64, 8, 12


def crops_of_pairs() -> tuple[Crops, torch.Tensor]:
    """Return pairs of crops, and the tile pixels ``B N 2`` (x, y) at the centres of patches.

    The second come from crops of tiles whose pixels store their own coordinates.
    """
    uniform = torch.rand((4, 2 * PAIRS), generator=torch.Generator().manual_seed(0))
    crops = Crops.of(uniform, (0.25, 0.8), PER_SIDE)
    rows, columns = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    tiles = torch.stack([columns, rows, rows]).expand(2 * PAIRS, 3, SIDE, SIDE)
    # Of the 8 x 8 px of a patch the middle 4 x 4, since pixels repeat beyond the tile's edge.
    cut = crops.cut(tiles)[:, :2].reshape(-1, 2, PER_SIDE, 8, PER_SIDE, 8)
    return crops, cut[:, :, :, 2:6, :, 2:6].mean((3, 5)).flatten(2).transpose(1, 2)


def test_the_places_of_patches_are_where_their_pixels_come_from() -> None:
    crops, pixels = crops_of_pairs()
    patch_px = SIDE * crops.kept / PER_SIDE
    expected = (pixels + 0.5 - SIDE / 2) / patch_px[:, None, None]
    assert torch.allclose(crops.places(PER_SIDE), expected, atol=1e-3)
    assert torch.equal(crops.kept[:PAIRS], crops.kept[PAIRS:])  # one GSD
    assert len(set(crops.kept.tolist())) == PAIRS


def test_pairs_of_patches_show_the_same_ground() -> None:
    crops, pixels = crops_of_pairs()
    places = crops.places(PER_SIDE)
    found = {tuple(one) for one in torch.stack(same_ground(*places.chunk(2)), dim=1).tolist()}
    expected = set()
    for tile in range(PAIRS):
        half_px = SIDE * float(crops.kept[tile]) / PER_SIDE / 2
        first, second = pixels[tile].numpy(), pixels[PAIRS + tile].numpy()
        for patch, centre in enumerate(first):
            apart_px = np.hypot(*(second - centre).T)
            if apart_px.min() <= half_px:
                expected.add((tile, patch, int(apart_px.argmin())))
                assert apart_px.min() < 0.01  # crops are whole patches apart
    assert found == expected
    assert 0 < len(found) < PAIRS * PER_SIDE**2


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0.0, 0.0), [(0, 0), (1, 1), (2, 2)]),
        ((1.0, 0.0), [(1, 0), (2, 1)]),  # a whole patch
        ((0.3, 0.3), [(0, 0), (1, 1), (2, 2)]),  # within half a patch
        ((0.4, 0.4), []),  # 0.57 patches
        ((0.7, 0.0), [(1, 0), (2, 1)]),  # the nearest is the next one
        ((9.0, 0.0), []),
    ],
)
def test_a_patch_belongs_to_the_nearest_within_half_a_patch(
    shift: tuple[float, float], expected: list[tuple[int, int]]
) -> None:
    first = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    _, patch, partner = same_ground(first, first + torch.tensor(shift))
    assert list(zip(patch.tolist(), partner.tolist(), strict=True)) == expected


def test_views_of_a_pair_share_ground_but_not_all_of_it() -> None:
    places = crops_of_pairs()[0].places(PER_SIDE)
    visible, _ = random_masks(2 * PAIRS, PER_SIDE**2, 48, torch.Generator().manual_seed(0), places)
    shown = take(places, visible)
    shared = torch.bincount(same_ground(*shown.chunk(2))[0], minlength=PAIRS)
    whole = torch.bincount(same_ground(*places.chunk(2))[0], minlength=PAIRS)
    blind = take(places, random_masks(2 * PAIRS, 64, 48, torch.Generator().manual_seed(0))[0])
    assert shared.sum() > 1.5 * len(same_ground(*blind.chunk(2))[0])
    assert (shared < 16).all()
    assert (shared <= whole).all()


def test_colours_change_by_gain_haze_and_offset() -> None:
    mean, std = torch.tensor([[100.0, 110.0, 90.0], [50.0, 40.0, 60.0]])[..., None, None]
    black, white = (0 - mean) / std, (255 - mean) / std
    pixels = torch.rand((3, 3, 4, 4)) * 255

    def changed(**colour: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        image = altered((pixels - mean) / std, ColourConfig(**colour), black, white, generator)
        restored: torch.Tensor = image * std + mean
        return restored

    assert torch.allclose(changed(), pixels, atol=1e-3)
    ratio = (changed(gain=0.2) / pixels).flatten(2)  # one gain for each channel of each image
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3)
    assert len(set(ratio[..., 0].flatten().tolist())) == 9
    depth = -(((255 - changed(haze=0.5)) / (255 - pixels)).log())[:, :, 0, 0]
    assert ((depth > 0) & (depth <= 0.5)).all()
    rayleigh = torch.tensor([665.0, 560.0, 490.0]).pow(-4)
    assert torch.allclose(depth / depth[:, 2:], (rayleigh / rayleigh[2]).expand(3, 3), rtol=1e-2)
    offset = ((changed(offset=0.2) - pixels) / std).flatten(2)
    assert torch.allclose(offset, offset[..., :1].expand_as(offset), atol=1e-4)


# The objective


def test_visible_patches_keep_their_places() -> None:
    network = ScaleMae(NetworkConfig(16, 2, 2, 8))
    network.initialise(0)
    image, gsd = torch.randn(2, 3, 16, 24), torch.tensor([3.0, 10.0])
    whole = network(image, gsd)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    tokens = network.encode(network.embed(image, gsd).flatten(1, 2)[:, order])
    assert torch.allclose(tokens[:, 0], whole.cls, atol=1e-5)
    assert torch.allclose(tokens[:, 1:], whole.patches.flatten(1, 2)[:, order], atol=1e-5)


def test_reconstruction_knows_where_patches_lie(images: Path) -> None:
    objective = Objective(recipe(images))
    image, gsd_m = torch.randn(2, 3, 32, 32), torch.tensor([10.0, 0.3])
    visible, masked = random_masks(2, 16, 12, torch.Generator().manual_seed(0))
    _, given, true = objective.reconstruct(image, gsd_m, 32, visible, masked)
    turned = objective.reconstruct(image, gsd_m, 32, visible.flip(1), masked.flip(1))
    assert torch.allclose(given.low.flip(1), turned[1].low, atol=1e-5)
    assert torch.allclose(given.high.flip(1), turned[1].high, atol=1e-5)
    assert torch.equal(true.high.flip(1), turned[2].high)
    assert not torch.allclose(given.low[:, 0], given.low[:, 1], atol=1e-4)
    told = objective.reconstruct(image, 4 * gsd_m, 32, visible, masked)
    assert not torch.allclose(given.low, told[1].low, atol=1e-4)


def test_positions_may_begin_as_in_a_larger_image(images: Path) -> None:
    data = replace(recipe(images).data, tile_size=16)
    objective = Objective(recipe(images, data=data, views=ViewConfig((16,))))
    image, gsd_m = torch.randn(2, 3, 48, 48), torch.tensor([10.0, 0.3])
    visible = torch.tensor([[0, 3], [1, 2]])
    part = torch.stack([image[0, :, 16:32, 24:40], image[1, :, :16, 8:24]])
    origin = torch.tensor([[2, 3], [0, 1]])
    tokens = objective.reconstruct(part, gsd_m, 16, visible, 3 - visible, origin)[0]
    whole = objective.encoder.embed(image, gsd_m)
    placed = torch.stack([whole[0, 2:4, 3:5], whole[1, :2, 1:3]]).flatten(1, 2)
    assert torch.allclose(tokens, objective.encoder.encode(take(placed, visible)), atol=1e-5)


def test_the_losses_are_those_of_the_paper(images: Path) -> None:
    objective = Objective(recipe(images))
    image, gsd_m = torch.randn(4, 3, 32, 32), torch.full((4,), 10.0)
    visible, masked = random_masks(4, 4, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = objective(image, gsd_m, 16, visible, masked)
        _, given, true = objective.reconstruct(image, gsd_m, 16, visible, masked)
    assert float(losses.low) == pytest.approx(float(((given.low - true.low) ** 2).mean()))
    assert float(losses.high) == pytest.approx(float((given.high - true.high).abs().mean()))
    parts = losses.low + losses.high + 0.5 * losses.contrast
    assert float(losses.total) == pytest.approx(float(parts))


def test_agreement_is_a_cross_entropy_of_cosines() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 3))
    cosine = (first @ second.T) / np.outer(
        np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    )
    chance = np.exp(cosine / 0.1)
    by_row, by_column = (np.diag(chance) / chance.sum(axis) for axis in (1, 0))
    expected = -(np.log(by_row).mean() + np.log(by_column).mean()) / 2
    assert float(info_nce(torch.tensor(first), torch.tensor(second), 0.1)) == pytest.approx(
        expected
    )


def test_agreement_at_the_same_ground_is_a_cross_entropy_over_tokens_far_away() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(4, 3, 5))  # two crops of two tiles, three patches each
    # The second crops are shifted by a patch: patches 1 and 2 are their 0 and 1.
    across = torch.tensor([[0.0, 1.0, 3.0], [0.0, 1.0, 3.0], [1.0, 3.0, 4.0], [1.0, 2.0, 4.0]])
    places = torch.stack([across, torch.zeros(4, 3)], dim=2)
    # Tile, patch of the first crop, patch of the second; and where it is.
    pairs = {(0, 1, 0): 1.0, (0, 2, 1): 3.0, (1, 1, 0): 1.0}

    def vector(view: int, pair: tuple[int, int, int]) -> np.ndarray:
        one = tokens[2 * view + pair[0], pair[1 + view]]
        return np.asarray(one / np.linalg.norm(one))

    losses = []
    for own, x in pairs.items():
        for view in (0, 1):
            alike = {
                pair: np.exp(vector(view, own) @ vector(1 - view, pair) / 0.1)
                for pair, place in pairs.items()
                if pair == own or pair[0] != own[0] or abs(place - x) >= 2
            }
            losses.append(-np.log(alike[own] / sum(alike.values())))
    given, farther = (
        dense_info_nce(torch.tensor(tokens), places, DenseConfig(far=far)) for far in (2.0, 2.5)
    )
    assert float(given) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(farther) < float(given)


def test_a_token_that_carries_the_whole_crop_does_not_agree() -> None:
    """It is found among those of other tiles, not among those of its own."""
    places = crops_of_pairs()[0].places(PER_SIDE)
    rng = np.random.default_rng(0)
    ground = torch.tensor(rng.normal(size=(PAIRS, 64, 64, 64)), dtype=torch.float32)
    x, y = ((places * 2).round().long() + 32).unbind(-1)
    tile = torch.arange(PAIRS).repeat(2)[:, None]
    local = ground[tile, y, x]
    crop = local.mean(1, keepdim=True).expand_as(local)
    losses = [float(dense_info_nce(one, places, DenseConfig(weight=1.0))) for one in (local, crop)]
    assert losses[0] < 0.5
    assert losses[1] > 3
    apart = places + torch.where(torch.arange(2 * PAIRS) < PAIRS, 0.0, 99.0)[:, None, None]
    assert dense_info_nce(local, apart, DenseConfig(weight=1.0)) == 0  # no ground in common


# Runs


def test_a_run_learns_and_its_checkpoint_embeds(images: Path) -> None:
    folder = stepped(recipe(images), 60, learning_rate=1e-2)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 61))
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:5], lines[-5:]))
    assert last < 0.8 * first
    with Image.open(folder / "pictures" / "step-0000060.png") as picture:
        assert picture.width == 2 * 5 * 36
    config = json.loads((folder / "small" / "config.json").read_text())
    assert (config["image_size"], config["patch_size"]) == (32, 8)
    assert config["trained_input_res"] == [5.0, 20.0]
    assert config["training"]["step"] == 60
    assert config["training"]["data"]["sources"][0]["path"] == "images"
    assert str(images.parent) not in json.dumps(config)
    pixels = np.random.default_rng(0).integers(200, 3000, (3, 32, 32), dtype=np.uint16)
    grid = get_embedding(
        "scalemae", input_chw=pixels, weights=str(folder / "small"), output=OutputSpec.grid(),
        fetch=FetchSpec(scale_m=10), input_prep="tile",
    )  # fmt: skip
    assert grid.data.shape == (16, 4, 4)
    assert grid.meta["network"]["depth"] == 1


def test_a_gsd_beyond_what_was_trained_is_told(images: Path) -> None:
    folder = stepped(recipe(images), 1)
    pixels = np.random.default_rng(0).integers(200, 3000, (3, 32, 32), dtype=np.uint16)
    with pytest.warns(GsdWarning, match="5 to 20"):
        get_embedding(
            "scalemae", input_chw=pixels, weights=str(folder / "small"), input_prep="tile",
            fetch=FetchSpec(scale_m=400),
        )  # fmt: skip


def test_the_weights_that_ship_tell_a_gsd_beyond_their_training() -> None:
    pixels = np.random.default_rng(0).integers(200, 3000, (3, 224, 224), dtype=np.uint16)
    with pytest.warns(GsdWarning, match="outside the 0.15 to 80"):
        get_embedding(
            "scalemae", input_chw=pixels, variant="tiny", input_prep="tile",
            fetch=FetchSpec(scale_m=2000),
        )  # fmt: skip


def results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the weights and the metrics, less what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["tiles_per_s"]
    return load_file(folder / "state.safetensors"), lines


def assert_same(one: Path, other: Path) -> None:
    (weights, lines), (others, other_lines) = results(one), results(other)
    assert lines == other_lines
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def stopped_early(config: PretrainConfig, folder: str, times: int) -> Path:
    """Run ``times`` times for one step each; the schedule is that of all steps."""
    place = Path(config.run.folder).with_name(folder)
    config = replace(config, run=replace(config.run, folder=str(place), minutes=1e-9))
    for step in range(1, times + 1):
        assert pretrain(config, progress=False).step == step
    return place


LOCAL: dict[str, Any] = {
    "contrast": ContrastConfig(weight=0.5, embed_dim=8, patches=False),
    "dense": DenseConfig(weight=0.5),
    "colour": ColourConfig(gain=0.2, offset=0.1, haze=0.3),
    "views": ViewConfig((16, 32), (1.0, 2.0), origin=5),
}


@pytest.mark.parametrize(("ema_decay", "more"), [(0.998, {}), (0.0, {}), (0.998, LOCAL)])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(
    images: Path, ema_decay: float, more: dict[str, Any]
) -> None:
    config = recipe(images, **more)
    config = replace(config, optimiser=replace(config.optimiser, ema_decay=ema_decay))
    whole = stepped(config, 6)
    parted = stopped_early(config, "parted", 3)
    stepped(config, 6, "parted")
    assert_same(whole, parted)
    released = [load_file(one / "small" / "model.safetensors") for one in (whole, parted)]
    assert all(torch.equal(released[0][name], released[1][name]) for name in released[0])
    state = load_file(whole / "state.safetensors")
    latest = state["objective.encoder.cls_token"].half()
    assert torch.equal(released[0]["cls_token"], latest) is (ema_decay == 0)
    assert pretrain(replace(config, run=replace(config.run, folder=str(parted)))).resumed_at == 6


@pytest.mark.skipif(os.name == "nt", reason="needs signals that a process can catch")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_its_state_kept(images: Path, how: signal.Signals) -> None:
    folder = images.parent / "run"
    with running("-c", ENDLESS, str(images), env=python_environment()) as process:
        assert line_of(process) == "stepped\n", errors_of(process)
        process.send_signal(how)
        told = json.loads(line_of(process))
        assert process.wait(WAIT_S) == 0
    assert told["interrupted"]
    assert results(folder)[1][-1]["step"] == told["step"]
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert pretrain(recipe(images).with_steps(told["step"])).resumed_at == told["step"]


ENDLESS = """
import json, sys, threading, time
from pathlib import Path
from rs_embed.training.pretraining import pretrain
from tests.test_training import recipe
config = recipe(Path(sys.argv[1])).with_steps(10**9)
metrics = Path(config.run.folder, "metrics.jsonl")

def tell():
    while not metrics.exists() or not metrics.read_text():
        time.sleep(0.001)
    print("stepped", flush=True)

threading.Thread(target=tell, daemon=True).start()
report = pretrain(config, progress=False)
print(json.dumps({"step": report.step, "interrupted": report.interrupted}))
"""


def test_two_runs_do_not_share_a_folder_and_the_lock_ends_with_the_process(images: Path) -> None:
    with running("-c", ENDLESS, str(images), env=python_environment()) as process:
        assert line_of(process) == "stepped\n", errors_of(process)
        with pytest.raises(TrainingError, match="another run is using .*run; wait for it to end"):
            pretrain(recipe(images), progress=False)
    stepped(recipe(images), 1)


def test_a_file_system_without_locks_gives_a_warning(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows has other locks")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(RsEmbedWarning, match="run is on a file system without locks"):
        stepped(recipe(images), 1)


def test_a_folder_that_cannot_be_made(images: Path) -> None:
    config = recipe(images)
    (images.parent / "file").write_text("")
    run = replace(config.run, folder=str(images.parent / "file" / "run"))
    with pytest.raises(ExportError, match="cannot use the folder .*file.run: .*; choose another"):
        pretrain(replace(config, run=run), progress=False)


def test_what_a_full_disk_left_of_a_line_does_not_stop_the_run(images: Path) -> None:
    folder = stepped(recipe(images), 2)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "sec')
    stepped(recipe(images), 3)
    assert [line["step"] for line in results(folder)[1]] == [1, 2, 3]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_resumed_run_does_not_hold_its_state_open(images: Path) -> None:
    """Windows replaces no file that is mapped."""
    folder = stepped(recipe(images), 1)
    training = Training(*parts_of(recipe(images)))
    read_state(folder / "state.safetensors", training, {})
    assert training.step == 1
    assert training.optimiser.state_dict()["state"]
    assert str(folder / "state.safetensors") not in Path("/proc/self/maps").read_text()


def parts_of(config: PretrainConfig) -> tuple[Objective, AveragedModel, torch.optim.Optimizer]:
    objective = Objective(config)
    groups = [[p for p in objective.parameters() if (p.ndim >= 2) is big] for big in (True, False)]
    optimiser = torch.optim.AdamW([{"params": group} for group in groups], fused=True)
    return objective, AveragedModel(objective.encoder), optimiser


def test_parts_of_a_batch_make_the_same_update(images: Path) -> None:
    config = recipe(images, contrast=ContrastConfig())
    whole = results(stepped(config, 2))[0]
    parted = results(stepped(config, 2, "parts", accumulate=2))[0]
    for name, value in whole.items():
        if name.startswith("objective."):
            assert torch.allclose(value, parted[name], atol=1e-4), name
    # AdamW would hide a gradient that is twice as long.
    norms = [
        [line["gradient_norm"] for line in results(Path(config.run.folder).with_name(name))[1]]
        for name in ("run", "parts")
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_more_steps_go_on_and_another_run_is_refused(images: Path) -> None:
    config = recipe(images)
    stepped(config, 2)
    stepped(config, 3)
    with pytest.raises(CheckpointError, match="optimiser.weight_decay was 0.05 and is now 0.1"):
        stepped(config, 4, weight_decay=0.1)
    source = replace(config.data.sources[0], gsd_m=20.0)
    with pytest.raises(CheckpointError, match="another run: tiles_gsd_m was "):
        stepped(replace(config, data=replace(config.data, sources=(source,))), 4)
    packed_at = (images.parent / "run" / "tiles.u8").stat().st_mtime_ns
    finer = replace(config, data=replace(config.data, tile_size=64))
    with pytest.raises(CheckpointError, match="data.tile_size was 32 and is now 64"):
        stepped(finer, 4)
    assert (images.parent / "run" / "tiles.u8").stat().st_mtime_ns == packed_at
    (images / "5.png").unlink()
    with pytest.raises(CheckpointError, match="another run: tiles was '[0-9a-f]{64}'"):
        stepped(config, 4)


def test_a_run_of_a_version_with_fewer_options_goes_on(images: Path) -> None:
    """What such a state does not say is at its default."""
    config = recipe(images)
    state = stepped(config, 2) / "state.safetensors"
    with safe_open(state, framework="pt") as file:
        record = json.loads(file.metadata()["training"])
    del record["what"]["dense"], record["what"]["colour"], record["what"]["contrast"]["patches"]
    save_file(load_file(state), state, metadata={"training": json.dumps(record)})
    with pytest.raises(CheckpointError, match="dense.weight was 0.0 and is now 0.5"):
        stepped(replace(config, dense=DenseConfig(weight=0.5)), 3)
    with pytest.raises(CheckpointError, match="contrast.patches was True and is now False"):
        stepped(replace(config, contrast=replace(config.contrast, patches=False)), 3)
    stepped(config, 3)


def test_tokens_of_the_same_ground_come_to_agree(images: Path) -> None:
    config = recipe(images, **LOCAL | {"views": ViewConfig((16, 32), (1.0, 2.0))})
    config = replace(config, run=replace(config.run, snapshot_steps=25))
    folder = stepped(config, 50, learning_rate=1e-2)
    lines = results(folder)[1]
    first, last = (np.mean([line["dense"] for line in part]) for part in (lines[:5], lines[-5:]))
    assert last < 0.8 * first
    kept = [path.name for path in sorted((folder / "snapshots").iterdir())]
    assert kept == ["step-0000025", "step-0000050"]
    snapshot, release = (
        load_file(folder / name / "model.safetensors")
        for name in ("snapshots/step-0000050", "small")
    )
    assert all(torch.equal(snapshot[name], release[name]) for name in release)


def test_a_run_can_begin_from_weights(images: Path) -> None:
    config = recipe(images)
    first = stepped(config, 3)
    second = replace(
        config, initial=str(first / "small"), run=replace(config.run, seed=1)
    )  # fresh weights would be others
    begun = stepped(second, 1, "second", learning_rate=1e-12, weight_decay=0.0)
    before, after = (load_file(folder / "small" / "model.safetensors") for folder in (first, begun))
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    other_heads = replace(second, network=NetworkConfig(16, 1, 4, 8))
    with pytest.raises(CheckpointError, match="num_heads=2.* expected .*num_heads=4"):
        stepped(other_heads, 1, "third")
    gone = replace(second, initial=str(first / "gone"))  # not read again
    assert stepped(gone, 2, "second", learning_rate=1e-12, weight_decay=0.0) == begun


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(images: Path) -> None:
    config = recipe(images)
    folder = stepped(config, 2)
    ruin(folder / "state.safetensors")
    before = (folder / "state.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="step 3 is not finite .loss inf, low inf, .* is kept"):
        stepped(config, 6)
    assert (folder / "state.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_before_any_checkpoint(images: Path) -> None:
    with pytest.raises(TrainingError, match="step 2 is not finite .* there is no checkpoint yet"):
        stepped(recipe(images), 6, learning_rate=1e37, warmup_steps=0)
    assert not (images.parent / "run" / "state.safetensors").exists()


def ruin(state: Path) -> None:
    """Make the next step overflow: an offset of the decoder near the largest float."""
    with safe_open(state, framework="pt") as file:
        record = file.metadata()
    tensors = load_file(state)
    tensors["objective.decoder.low.rgb.bias"].fill_(3e38)
    save_file(tensors, state, metadata=record)


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_keeps_the_last_checkpoint(images: Path) -> None:
    folder = stepped(recipe(images), 2)
    before = (folder / "state.safetensors").read_bytes()
    done = completed("-c", FULL, str(images), env=python_environment())
    assert "ExportError" in done.stderr, done.stderr
    assert (folder / "state.safetensors").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


FULL = """
import resource, signal, sys
from pathlib import Path
from rs_embed.training.pretraining import pretrain
from tests.test_training import recipe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
pretrain(recipe(Path(sys.argv[1])), progress=False)
"""


def test_a_damaged_state_is_refused(images: Path) -> None:
    folder = stepped(recipe(images), 1)
    state = folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a complete state of a training run"):
        stepped(recipe(images), 2)
    save_file({"a": torch.zeros(1)}, state)
    with pytest.raises(CheckpointError, match="is not the state of a training run"):
        stepped(recipe(images), 2)


def test_the_command_trains_and_goes_on(images: Path) -> None:
    path = images.parent / "a.toml"
    path.write_text(RECIPE.replace('initial = "weights"\n', ""))

    def run(*more: str) -> dict[str, Any]:
        done = completed(
            "-c", MAIN, "pretrain", str(path), "--json", *more, env=python_environment()
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    assert run("--minutes", "1e-9")["step"] == 1
    report = run()
    assert (report["step"], report["resumed_at"]) == (6, 1)
    assert Path(report["checkpoint"], "model.safetensors").exists()
