"""Draw the pictures of docs/plots.md, docs/metres.md and of two tutorials.

    python scripts/make_plot_pictures.py [FOLDER]

They are made from the sample scene, the two dates of the Inn in tests/data, and the small weights.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rs_embed import (
    SAMPLE_PLACE,
    FetchSpec,
    NamedPlace,
    PointBuffer,
    change,
    embed_area,
    embed_table,
    get_embedding,
    get_embeddings_batch,
    plotting,
)
from rs_embed.embedding.quicklook import stretched
from rs_embed.models.scalemae.network import gsd_positions

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
SMALL: dict[str, Any] = {"variant": "tiny", "display": "visual"}
DPI = 64
DIMENSIONS, CHANNEL = 192, 17


def write(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG of few colours."""
    plotting.save(figure, path, dpi=DPI)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(
            200, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def plots(folder: Path, work: Path) -> None:
    """Draw the pictures of docs/plots.md."""
    area = SAMPLE_PLACE
    embed_area(
        "scalemae", spatial=area, output=work / "map.zarr", backend="sample", seams="harmonise",
        **SMALL,
    )  # fmt: skip
    lon, lat = area.centre
    marsh = lon - 0.005, lat - 0.012
    places = [
        NamedPlace(f"{row}-{column}", PointBuffer(lon + column * 0.0095, lat + row * 0.0075, 320))
        for row in range(-4, 5)
        for column in range(-4, 5)
    ]
    table = embed_table("scalemae", places, backend="sample", **SMALL)
    for name, figure in {
        "plot-pca": plotting.pca(work / "map.zarr"),
        "plot-similarity": plotting.similarity(work / "map.zarr", point=marsh),
        "plot-clusters": plotting.clusters(work / "map.zarr", k=5),
        "plot-histogram": plotting.histogram(work / "map.zarr", table),
        "plot-coverage": plotting.coverage(table),
    }.items():
        write(figure, folder / f"{name}.png")


def two_dates(folder: Path) -> None:
    """Draw the picture of docs/tutorial-change.md."""
    images = sorted((ROOT / "tests" / "data" / "inn").glob("*.tif"))
    grids: list[Any] = get_embeddings_batch(  # none fails
        "scalemae", imageries=images, output="grid", input_prep="tile", variant="tiny",
        keep_images=True,
    )  # fmt: skip
    figure = Figure(figsize=(12.5, 4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    bright = stretched(np.stack([grid.image for grid in grids]))
    for ax, image, path in zip(axes, bright, images, strict=False):
        ax.imshow(image)
        ax.set_title(path.stem, fontsize="small")
        ax.set_axis_off()
    plotting.change(change(*grids, centred=True), ax=axes[2])
    write(figure, folder / "tutorial-change.png")


def encoding(patches: int, gsd_m: float) -> NDArray[np.float32]:
    """Return a channel of the position encoding of a row of patches."""
    encoded = gsd_positions(1, patches, DIMENSIONS, torch.tensor([gsd_m]))
    found: NDArray[np.float32] = encoded.reshape(-1, DIMENSIONS)[-patches:, CHANNEL].numpy()
    return found


def gsd(folder: Path) -> None:
    """Draw the picture of docs/metres.md, and print its numbers."""
    with rasterio.open(str(files("rs_embed") / "data" / "sample_s2.tif")) as file:
        fine = file.read()[:, :512, :512].astype(np.float64)
    coarse = fine.reshape(3, 256, 2, 256, 2).mean(axis=(2, 4))
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    view = np.clip(fine / 3000, 0, 1).transpose(1, 2, 0)
    half = np.clip(coarse / 3000, 0, 1).transpose(1, 2, 0)
    for ax, image, metres in ((axes[0], view[:128, :128], 10), (axes[1], half[:64, :64], 20)):
        bands = [stretched((band * 255).astype(np.uint8)) for band in image.transpose(2, 0, 1)]
        ax.imshow(np.stack(bands, axis=-1), extent=(0, 1280, 1280, 0))
        patches = np.arange(0, 1281, 8 * metres)
        ax.set(xticks=patches[::4], yticks=patches[::4], xlabel="m")
        ax.vlines(patches, 0, 1280, colors="white", linewidth=0.3)
        ax.hlines(patches, 0, 1280, colors="white", linewidth=0.3)
        ax.set_title(f"1280 m at {metres} m: patches of {8 * metres} m", fontsize="small")
    for metres, told, style, label in (
        (10, 10.0, "o-", "10 m, told 10 m"), (20, 20.0, "s", "20 m, told 20 m"),
        (20, 10.0, "x", "20 m, told 10 m"),
    ):  # fmt: skip
        at = np.arange(0, 1281, 8 * metres)
        how: dict[str, Any] = {"label": label, "markersize": 4, "linewidth": 0.5}
        axes[2].plot(at, encoding(len(at), told), style, **how)
    axes[2].set_title("what the encoding says of a patch", fontsize="small")
    axes[2].set(
        xlabel="true position, m", ylabel=f"channel {CHANNEL} of {DIMENSIONS}", ylim=(-1.1, 1.9)
    )
    axes[2].legend(fontsize="x-small", loc="upper right")
    scales = 10 * 2.0 ** np.arange(-3, 4)
    for pixels, true, style in ((fine[:, :256, :256], 10.0, "-o"), (coarse, 20.0, "-s")):
        vectors = {scale: vector(pixels, scale) for scale in (*scales, true)}
        cosines = [float(vectors[scale] @ vectors[true]) for scale in scales]
        axes[3].plot(scales, cosines, style, label=f"image of {true:g} m", markersize=3)
        print(true, dict(zip(scales.tolist(), np.round(cosines, 3).tolist(), strict=True)))
    axes[3].set(xscale="log", xlabel="GSD told, m", ylabel="cosine to the right vector")
    axes[3].set_xticks([1.25, 5, 10, 20, 80], ["1.25", "5", "10", "20", "80"])
    axes[3].minorticks_off()
    axes[3].set_title("the vector, if the GSD told is wrong", fontsize="small")
    axes[3].legend(fontsize="x-small")
    write(figure, folder / "gsd.png")
    others = np.stack([vector(part, 10.0) for part in quarters(fine)])
    print("four places at 10 m:", np.round((others @ others.T)[np.triu_indices(4, 1)], 3))


def quarters(pixels: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return four neighbouring images of 256 px."""
    return [pixels[:, r : r + 256, c : c + 256] for r in (0, 256) for c in (0, 256)]


def vector(pixels: NDArray[np.float64], scale_m: float) -> NDArray[np.float32]:
    """Return the embedding of an image, at length 1, if the model is told this GSD."""
    found = get_embedding(
        "scalemae", input_chw=pixels, fetch=FetchSpec(scale_m=scale_m), input_prep="tile", **SMALL
    ).data
    unit: NDArray[np.float32] = found / np.linalg.norm(found)
    return unit


def main(folder: Path) -> None:
    """Write all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as work:
        warnings.simplefilter("ignore")
        gsd(folder)
        two_dates(folder)
        plots(folder, Path(work))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
