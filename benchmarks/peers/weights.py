"""Write random ViT-L/16 weights that both sides load: ``python weights.py FOLDER``.

Names and ``config.json`` are those of the wrapper of the package rshf, which the peer loads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.network import ScaleMae

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    stated = {"feat_dim": 1024, "fc_dim": 1024, "global_pool": False, "cls_token_flag": True}
    (folder / "config.json").write_text(json.dumps(stated))
    network = ScaleMae(NetworkConfig())
    network.initialise(seed=0)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
