"""Configuration of a pretraining run, checked as a whole before anything is read."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from rs_embed.errors import SpecError, UnknownNameError
from rs_embed.models.devices import check_device
from rs_embed.models.scalemae.config import NetworkConfig

PRECISIONS = ("auto", "float32", "bfloat16")
_NAME = re.compile(r"\w[\w. -]*")
# Decides how the checkpoint is used, not what is learnt.
OF_USERS = ("image_size", "map_tile_size")
# What else is in run.folder.
_RESERVED = (
    "pictures",
    "snapshots",
    "run.lock",
    "state.safetensors",
    "metrics.jsonl",
    "tiles.u8",
    "tiles.json",
)


@dataclass(frozen=True)
class SourceConfig:
    """One set of images."""

    path: str  # what `datasets.read_samples` reads; `recipe.read_recipe` makes it absolute
    gsd_m: float | None = None  # ground metres per pixel of images without a georeference
    split: str | None = None  # only images of this split; None for all
    repeat: int = 1  # times that an epoch draws each image

    def __post_init__(self) -> None:
        _check(self.gsd_m is None or self.gsd_m > 0, "gsd_m", self.gsd_m, "a number above 0")
        _check_at_least(1, self, "repeat")


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are packed."""

    sources: tuple[SourceConfig, ...]
    # Side of the packed tiles, pixels: the image at its highest resolution, I_hr of the paper.
    tile_size: int = 64
    # Resolutions at which an image is tiled: its own, half of it, a quarter, ...; as far as a whole
    # tile remains.
    levels: int = 3

    def __post_init__(self) -> None:
        _check(bool(self.sources), "sources", self.sources, "at least one [[data.sources]]")
        _check_at_least(16, self, "tile_size")
        _check_at_least(1, self, "levels")


@dataclass(frozen=True)
class ViewConfig:
    """How a tile becomes an input and its targets."""

    sides: tuple[int, ...] = (64,)  # sides of the input, pixels; each batch draws one
    shares: tuple[float, ...] = (1.0,)  # relative frequency of each side
    # Least and greatest share of a tile's area that a crop keeps; the GSD follows it.
    crop_area: tuple[float, float] = (0.25, 1.0)
    mask_ratio: float = 0.75  # share of the patches that the encoder does not see
    # The low frequencies are the image at this many cells per side of a patch, the high ones are
    # what is left of it.
    cells_per_patch: int = 2
    # Greatest patch, down and across, that an input's positions begin at, drawn for each image: as
    # if it were cut out of so much a larger one, whose tokens are asked for later.
    origin: int = 0

    def __post_init__(self) -> None:
        fitting = bool(self.sides) and min(self.sides) > 0
        _check(fitting, "sides", self.sides, "at least one, all above 0")
        fitting = len(self.shares) == len(self.sides) and min(self.shares) > 0
        _check(fitting, "shares", self.shares, "one number above 0 for each of sides")
        least, most = self.crop_area
        _check(0 < least <= most <= 1, "crop_area", self.crop_area, "0 < least <= greatest <= 1")
        _check(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "between 0 and 1")
        _check_at_least(1, self, "cells_per_patch")
        _check_at_least(0, self, "origin")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder, which only pretraining has."""

    embed_dim: int = 96
    depth: int = 3  # transformer blocks; the paper finds three enough
    num_heads: int = 3

    def __post_init__(self) -> None:
        _check_at_least(1, self, "num_heads")
        fitting = self.embed_dim % 4 == 0 and self.embed_dim % self.num_heads == 0
        fitting = fitting and self.embed_dim > 0
        _check(fitting, "embed_dim", self.embed_dim, "a multiple of 4 and of num_heads")
        _check_at_least(1, self, "depth")


@dataclass(frozen=True)
class ContrastConfig:
    """Agreement between two views of a tile, beside the reconstruction; not in the paper.

    Each tile then gives two crops, with the GSD of each, and the encoder learns to tell which
    belong together (Mishra et al., contrastive masked autoencoders, arXiv:2210.16870, section 3):
    InfoNCE on the class token and on the mean of the visible patches, each through a head that
    only pretraining has.
    """

    weight: float = 0.0  # weight of this loss; 0 for Scale-MAE as published
    temperature: float = 0.1
    # Whether the mean of the visible patches is compared too. It makes each patch token carry the
    # whole input, and so the border of a window; the class token alone does not.
    patches: bool = True
    embed_dim: int = 128  # width of the heads' output
    # Standard deviation of the logarithm of each view's gain, and of its offset in units of the
    # normalised image; 0 for none. The reconstruction follows the altered view.
    brightness: float = 0.0

    def __post_init__(self) -> None:
        _check_at_least(0, self, "weight", "brightness")
        _check_at_least(1, self, "embed_dim")
        _check(self.temperature > 0, "temperature", self.temperature, "a number above 0")


@dataclass(frozen=True)
class DenseConfig:
    """Agreement of patch tokens at the same ground; not in the paper.

    The two crops of a tile then have one GSD, so that a token is not asked to be the same at
    several, and are shifted by whole patches. See `dense.dense_info_nce`.
    """

    weight: float = 0.0  # weight of this loss; 0 for none
    temperature: float = 0.1
    # Tokens of one tile nearer than that many patches are not told apart.
    far: float = 2.0

    def __post_init__(self) -> None:
        _check_at_least(0, self, "weight", "far")
        _check(self.temperature > 0, "temperature", self.temperature, "a number above 0")


@dataclass(frozen=True)
class ColourConfig:
    """Random change of each view's colours, channel by channel; see `colour.altered`."""

    gain: float = 0.0  # standard deviation of the logarithm of each channel's gain
    offset: float = 0.0  # standard deviation of its offset, in units of the normalised image
    haze: float = 0.0  # greatest optical depth of the haze in blue light

    def __post_init__(self) -> None:
        _check_at_least(0, self, "gain", "offset", "haze")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a cosine schedule."""

    steps: int  # updates of the weights in all; a resumed run may change it
    batch_size: int = 256  # tiles per update; with contrast or dense each gives two images
    # Parts that a batch is computed in, where memory is short. The update is the same, except for
    # contrast and dense, which compare images within a part.
    accumulate: int = 1
    learning_rate: float = 1e-3  # at its peak
    # Updates over which it rises to the peak; after that it falls to 0 as a cosine.
    warmup_steps: int = 200
    weight_decay: float = 0.05  # of everything except biases and norms
    betas: tuple[float, float] = (0.9, 0.95)  # decays of AdamW's moments
    clip_norm: float = 1.0  # greatest norm of the gradient; a longer one is scaled down
    # Of the moving average of the weights, which is what is released; 0 for none.
    ema_decay: float = 0.998
    # Weight of the high-frequency loss (L1) beside that of the low frequencies (L2).
    high_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_at_least(1, self, "steps", "batch_size")
        _check_at_least(0, self, "warmup_steps", "weight_decay", "high_weight")
        whole = self.accumulate >= 1 and self.batch_size % self.accumulate == 0
        _check(whole, "accumulate", self.accumulate, f"a divisor of batch_size {self.batch_size}")
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        fitting = all(0 <= beta < 1 for beta in self.betas)
        _check(fitting, "betas", self.betas, "from 0 to below 1")
        _check(self.clip_norm > 0, "clip_norm", self.clip_norm, "a number above 0")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "from 0 to below 1")


@dataclass(frozen=True)
class RunConfig:
    """How and where it runs; only the seed changes what is learnt."""

    folder: str  # where everything is written; relative to the TOML file
    seed: int = 0  # of the weights, crops, masks and order
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1" or "mps"
    precision: str = "auto"  # "float32", "bfloat16", or "auto": bfloat16 on CUDA
    minutes: float | None = None  # time after which a run ends, its state kept; None for all steps
    checkpoint_minutes: float = 5.0  # time between two checkpoints
    picture_steps: int = 1000  # updates between two pictures of reconstructions
    # Updates between two checkpoints that are kept, in `snapshots`; None for the last one alone.
    snapshot_steps: int | None = None
    log_steps: int = 20  # updates between two lines of the metrics

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.precision not in PRECISIONS:
            raise UnknownNameError.among("precision", self.precision, PRECISIONS)
        _check(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to below 2**63")
        _check(self.minutes is None or self.minutes > 0, "minutes", self.minutes, "above 0")
        _check(self.checkpoint_minutes > 0, "checkpoint_minutes", self.checkpoint_minutes, "> 0")
        _check_at_least(1, self, "picture_steps", "log_steps")
        snapshots = self.snapshot_steps
        _check(snapshots is None or snapshots >= 1, "snapshot_steps", snapshots, "at least 1")


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run, complete.

    Attributes
    ----------
    name : str
        Name of the resulting checkpoint, a folder in ``run.folder``.
    data, run, optimiser, network, views, decoder, contrast, dense, colour
        The tables of the TOML file.
    initial : str or None
        Initial weights of the encoder, as for ``weights=``; None for random ones. A resumed run
        does not read them.
    image_size : int or None
        Side to which users of the checkpoint resize images; None for the largest of
        ``views.sides``.
    map_tile_size : int or None
        Side of the windows of maps; None for ``image_size``.
    """

    name: str
    data: DataConfig
    run: RunConfig
    optimiser: OptimiserConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)
    colour: ColourConfig = field(default_factory=ColourConfig)
    initial: str | None = None
    image_size: int | None = None
    map_tile_size: int | None = None

    def __post_init__(self) -> None:
        fitting = _NAME.fullmatch(self.name) is not None and self.name not in _RESERVED
        _check(fitting, "name", self.name, f"a folder's name, not a path or {', '.join(_RESERVED)}")
        hidden_width = int(self.network.embed_dim * self.network.mlp_ratio)
        _check(hidden_width >= 1, "network.mlp_ratio", self.network.mlp_ratio, "a number above 0")
        patch, tile = self.network.patch_size, self.data.tile_size
        # The decoder's cells: 2 per side of a patch, then 4.
        _check(patch % 4 == 0, "network.patch_size", patch, "a multiple of 4")
        for side in self.views.sides:
            _check(
                side % patch == 0 and tile % side == 0, "views.sides", side,
                f"multiples of patch_size {patch} that divide tile_size {tile}",
            )  # fmt: skip
            hidden = hidden_patches(side, self.network, self.views)
            _check(
                0 < hidden < (side // patch) ** 2, "views.mask_ratio", self.views.mask_ratio,
                f"to leave some of the {(side // patch) ** 2} patches of {side} px, and not all",
            )  # fmt: skip
        for name in OF_USERS:
            size = getattr(self, name)
            fitting = size is None or (size > 0 and size % patch == 0)
            _check(fitting, name, size, f"a multiple of {patch}, or none")
        part = self.optimiser.batch_size // self.optimiser.accumulate
        _check(
            not self.paired or part >= 2, "optimiser.accumulate", self.optimiser.accumulate,
            "parts of two tiles or more, which contrast and dense compare",
        )  # fmt: skip
        _check(
            not self.contrast.weight or self.network.cls_token or self.contrast.patches,
            "contrast.patches", self.contrast.patches, "true, as the network has no class token",
        )  # fmt: skip
        cells = self.views.cells_per_patch
        _check(
            patch % cells == 0, "views.cells_per_patch", cells, f"a divisor of patch_size {patch}"
        )

    @property
    def paired(self) -> bool:
        """Whether each tile gives two crops."""
        return bool(self.contrast.weight or self.dense.weight)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        stated: dict[str, Any] = asdict(self)
        return stated

    def what_is_learnt(self) -> dict[str, Any]:
        """Return what a resumed run must share with the one that it resumes."""
        stated = self.to_json()
        stated["run"] = {"seed": self.run.seed}
        for name in ("initial", *OF_USERS):
            del stated[name]
        del stated["optimiser"]["steps"]
        # The tiles of the sources are compared by their hash, wherever the files are.
        stated["data"]["sources"] = [{"repeat": one.repeat} for one in self.data.sources]
        return cast(dict[str, Any], json.loads(json.dumps(stated)))

    def with_steps(self, steps: int) -> PretrainConfig:
        """Return the same run with another number of steps."""
        return replace(self, optimiser=replace(self.optimiser, steps=steps))


def defaults() -> dict[str, dict[str, Any]]:
    """Return, as JSON values, the tables that a recipe need not have."""
    tables: dict[str, Any] = {
        "views": ViewConfig(), "decoder": DecoderConfig(), "contrast": ContrastConfig(),
        "dense": DenseConfig(), "colour": ColourConfig(),
    }  # fmt: skip
    stated = {name: asdict(table) for name, table in tables.items()}
    return cast(dict[str, dict[str, Any]], json.loads(json.dumps(stated)))


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Return the rate of a step: a linear rise, then half a cosine down to 0."""
    options = config.optimiser
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    done = (step - options.warmup_steps) / max(options.steps - options.warmup_steps, 1)
    return options.learning_rate * (1 + math.cos(math.pi * min(done, 1))) / 2


def hidden_patches(side: int, network: NetworkConfig, views: ViewConfig) -> int:
    """Return how many patches of an input of that side are masked."""
    return round((side // network.patch_size) ** 2 * views.mask_ratio)


def _check_at_least(least: float, table: Any, *names: str) -> None:
    for name in names:
        value = getattr(table, name)
        _check(value >= least, name, value, f"at least {least}")


def _check(fine: bool, name: str, got: Any, expected: str) -> None:
    if not fine:
        raise SpecError(f"got {name}={got!r}, expected {expected}")
