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
from matplotlib.figure import Figure
from numpy.typing import NDArray

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

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
SMALL: dict[str, Any] = {"variant": "tiny", "display": "visual"}
DPI = 64


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
        plotting.save(figure, folder / f"{name}.png", dpi=DPI)


def two_dates(folder: Path) -> None:
    """Draw the picture of docs/tutorial-change.md."""
    images = sorted((ROOT / "tests" / "data" / "inn").glob("*.tif"))
    grids = get_embeddings_batch(
        "scalemae", imageries=images, output="grid", input_prep="tile", variant="tiny"
    )
    figure = Figure(figsize=(12.5, 4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    bright = stretched(np.stack([grid.image for grid in grids]))
    for ax, image, path in zip(axes, bright, images, strict=False):
        ax.imshow(image)
        ax.set_title(path.stem, fontsize="small")
        ax.set_axis_off()
    plotting.change(change(*grids, centred=True), ax=axes[2])
    plotting.save(figure, folder / "tutorial-change.png", dpi=DPI)


def encoding(metres: NDArray[np.float64], wavelength_m: float) -> NDArray[np.float64]:
    """Return one channel of the position encoding: the sine of a position in metres."""
    return np.sin(metres / wavelength_m)


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
        ax.imshow(stretched((image * 255).astype(np.uint8)), extent=(0, 1280, 1280, 0))
        patches = np.arange(0, 1281, 8 * metres)
        ax.set(xticks=patches[::4], yticks=patches[::4], xlabel="m")
        ax.vlines(patches, 0, 1280, colors="white", linewidth=0.3)
        ax.hlines(patches, 0, 1280, colors="white", linewidth=0.3)
        ax.set_title(f"1280 m at {metres} m: patches of {8 * metres} m", fontsize="small")
    ground = np.linspace(0, 1280, 400)
    axes[2].plot(ground, encoding(ground, 200), color="0.6", linewidth=1)
    for step, told, style, label in (
        (80, 10, "o", "10 m, told 10 m"), (160, 20, "s", "20 m, told 20 m"),
        (160, 10, "x", "20 m, told 10 m"),
    ):  # fmt: skip
        at = np.arange(0, 1281, step)
        axes[2].plot(at, encoding(at * told / (step / 8), 200), style, label=label, markersize=4)
    axes[2].set_title("what the encoding says of a patch", fontsize="small")
    axes[2].set(xlabel="true position, m", ylabel="one of its channels", ylim=(-1.1, 1.9))
    axes[2].legend(fontsize="x-small", loc="upper right")
    told = 10 * 2.0 ** np.arange(-3, 3.1, 0.5)
    for pixels, true, style in ((fine[:, :256, :256], 10.0, "-o"), (coarse, 20.0, "-s")):
        vectors = {scale: vector(pixels, scale) for scale in (*told, true)}
        cosines = [float(vectors[scale] @ vectors[true]) for scale in told]
        axes[3].plot(told, cosines, style, label=f"image of {true:g} m", markersize=3)
        print(true, {f"{scale:.3g}": round(value, 3) for scale, value in zip(told, cosines, strict=True)})
    axes[3].set(xscale="log", xlabel="GSD told, m", ylabel="cosine to the right vector")
    axes[3].set_xticks([1.25, 5, 10, 20, 80], ["1.25", "5", "10", "20", "80"])
    axes[3].minorticks_off()
    axes[3].set_title("the vector, if the GSD told is wrong", fontsize="small")
    axes[3].legend(fontsize="x-small")
    plotting.save(figure, folder / "gsd.png", dpi=DPI + 8)
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
