"""Write a checkpoint for ``weights=``: float16 safetensors and its config."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from rs_embed._version import __version__
from rs_embed.errors import ExportError
from rs_embed.files.writing import written
from rs_embed.training.config import OF_USERS, PretrainConfig
from rs_embed.training.packing import Tiles


def write_checkpoint(
    folder: Path, encoder: nn.Module, config: PretrainConfig, step: int, tiles: Tiles
) -> None:
    """Write ``model.safetensors`` (float16) and ``config.json`` into ``folder``, which is made.

    Of the run's sources only the names are written, of its tiles the range of GSDs.

    Raises
    ------
    ExportError
        If the folder cannot be written, or the disk is full.
    """
    run = config.to_json()
    for name in ("run", "network", "initial", *OF_USERS):
        del run[name]
    for source in run["data"]["sources"]:
        source["path"] = Path(source["path"]).name
    least, most = trained_input_res(config, tiles)
    sizes = {"image_size": config.image_size or max(config.views.sides)}
    if config.map_tile_size is not None:
        sizes["map_tile_size"] = config.map_tile_size
    stated = config.network.to_json() | {
        **sizes,
        "display": "visual",  # reflectance as in the pictures of the training
        "trained_input_res": [least, most],
        "training": run
        | {
            "seed": config.run.seed,
            "step": step,
            "tiles": len(tiles),
            "tiles_sha256": tiles.digest,
            "rs_embed": __version__,
            "torch": torch.__version__,
        },
    }
    weights = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in encoder.state_dict().items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ExportError(f"cannot make the folder {folder}: {exc}") from exc
    with written(folder / "model.safetensors") as partial:
        try:
            save_file(weights, partial, metadata={"format": "pt"})
        except SafetensorError as exc:
            raise ExportError(f"cannot write {folder / 'model.safetensors'}: {exc}") from exc
    with written(folder / "config.json") as partial:
        partial.write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")


def trained_input_res(config: PretrainConfig, tiles: Tiles) -> tuple[float, float]:
    """Return the least and greatest GSD given to the encoder, ground metres per pixel."""
    size, sides = config.data.tile_size, config.views.sides
    least = float(tiles.gsd_m.min()) * config.views.crop_area[0] ** 0.5 * size / max(sides)
    most = float(tiles.gsd_m.max()) * config.views.crop_area[1] ** 0.5 * size / min(sides)
    return round(least, 4), round(most, 4)
