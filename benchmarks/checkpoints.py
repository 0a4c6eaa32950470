"""Write checkpoints of ViT-L/16 with random weights in both published formats, and read files.

    python benchmarks/checkpoints.py FOLDER

It runs as a separate process, to keep the memory of the measuring scripts small.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import run_python

SAFETENSORS = "model.safetensors"
PYTORCH = "pytorch_model.bin"


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add ``--folder`` to a script's arguments."""
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the checkpoints (2 x 1.21 GB) are kept for later runs; a temporary folder "
        "if left out",
    )


@contextmanager
def vit_large(folder: Path | None) -> Iterator[Path]:
    """Yield a folder with the checkpoint in both formats, written if missing."""
    with tempfile.TemporaryDirectory() as temporary:
        chosen = folder or Path(temporary)
        run_python([__file__, str(chosen)])
        yield chosen


def read_once(path: Path, buffer: bytearray) -> int:
    """Return the size of a file, read from start to end through ``buffer``."""
    size = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size += count
    return size


def new_buffer() -> bytearray:
    """Return a read buffer of 16 MiB, small enough that allocation takes no time."""
    return bytearray(1 << 24)


def _write(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from rs_embed.models.scalemae.config import NetworkConfig
    from rs_embed.models.scalemae.network import ScaleMae

    with torch.device("meta"):
        network = ScaleMae(NetworkConfig())
    network.to_empty(device="cpu").initialise(seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, save in ((SAFETENSORS, save_file), (PYTORCH, torch.save)):
        partial = folder / f"{name}.partial"
        save(network.state_dict(), partial)
        partial.replace(folder / name)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not all((target / name).is_file() for name in (SAFETENSORS, PYTORCH)):
        _write(target)
