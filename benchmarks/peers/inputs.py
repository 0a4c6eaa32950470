"""Write what both sides read: a dated scene, its places, and random ViT-L/16 weights.

    python benchmarks/peers/inputs.py SCENE SIDE COUNT FOLDER WEIGHTS

``WEIGHTS`` is a folder in the layout of the Hugging Face hub, which is written if it is missing: the
names of tensors and the ``config.json`` are those of the wrapper in ``rshf``, which the peer loads.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform

# A date in the name; the day of the sample scene is not known.
DATED = "scene_20160601.tif"
CONFIG = {"feat_dim": 1024, "fc_dim": 1024, "global_pool": False, "cls_token_flag": True}


def places(scene: Path, side: int, count: int) -> dict[str, Any]:
    """Return the centres of ``count`` windows of ``side`` pixels, on corners of pixels."""
    with rasterio.open(scene) as file:
        rows = math.isqrt(count - 1) + 1
        tops = np.linspace(side // 2, file.height - side // 2, rows).astype(int)
        lefts = np.linspace(side // 2, file.width - side // 2, rows).astype(int)
        corners = [file.transform @ (int(left), int(top)) for top in tops for left in lefts][:count]
        lons, lats = transform(file.crs, "EPSG:4326", *zip(*corners, strict=True))
        return {
            "centres": list(zip(lons, lats, strict=True)),
            "buffer_m": side / 2 * file.transform.a,
        }


def write_weights(folder: Path) -> None:
    """Write random weights unless the folder has some."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    from safetensors.torch import save_file

    from rs_embed.models.scalemae.config import NetworkConfig
    from rs_embed.models.scalemae.network import ScaleMae

    network = ScaleMae(NetworkConfig())
    network.initialise(seed=0)
    with torch.no_grad():  # trained norms and biases are not 1 and 0, which would hide a missing one
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file(state, folder / "partial")
    (folder / "partial").replace(folder / "model.safetensors")


if __name__ == "__main__":
    scene, side, count, folder, weights = sys.argv[1:]
    shutil.copy(scene, Path(folder) / DATED)
    write_weights(Path(weights))
    print(json.dumps(places(Path(scene), int(side), int(count))))
