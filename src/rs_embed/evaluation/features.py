"""From images to embeddings: each at several scales, with its own GSD or that of full size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rs_embed.embedding.encoding import GsdImage, ImageTokens, encode
from rs_embed.embedding.task import gsd_for_model
from rs_embed.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.datasets.samples import Sample
    from rs_embed.models.base import Encoder, Preparation

    Vectors = NDArray[np.float32]

_NORMAL_SIDE_PX = 224
_MOST_AT_ONCE = 512


@dataclass(frozen=True)
class View:
    """One way to show every image to the model."""

    scale: float  # share of full resolution, 1 at most
    side_px: int  # side of the image as it is shown, pixels
    own_gsd: bool  # whether its own GSD is given to the model, or that of full resolution


def sides(
    side_px: int, patch_size: int, scales: Sequence[float]
) -> tuple[int, dict[float, int], list[str]]:
    """Return the side at full resolution, the side at each scale, and what was left out.

    Sides are rounded to the nearest multiple of ``patch_size``, and are one patch at least.
    """

    def rounded(side: float) -> int:
        return max(math.floor(side / patch_size + 0.5), 1) * patch_size

    found: dict[float, int] = {}
    notes = []
    for scale in sorted(scales, reverse=True):
        side = rounded(side_px * scale)
        if side_px * scale < patch_size and scale < 1:
            notes.append(
                f"the scale {scale:g} is left out: {side_px * scale:g} px are less than one patch "
                f"of {patch_size} px"
            )
        elif side in found.values():
            notes.append(f"the scale {scale:g} is left out: it gives {side} px once more")
        else:
            found[scale] = side
    return rounded(side_px), found, notes


def square(image: NDArray[np.uint8]) -> Image.Image:
    """Return the middle of an image, as wide as it is high."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return Image.fromarray(image[top : top + side, left : left + side])


def shown(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """Return a square image at another side: averaged over areas if smaller, else bicubic."""
    if side_px == image.width:
        return np.asarray(image)
    kind = Image.Resampling.BOX if side_px < image.width else Image.Resampling.BICUBIC
    return np.asarray(image.resize((side_px, side_px), kind))


@dataclass
class Embeddings:
    """Embeds images as they come, in batches of one side."""

    encoder: Encoder
    preparation: Preparation
    # The option `gsd`: "metres", "relative", or the number at full resolution.
    policy: float | str
    full_px: int  # side at full resolution, pixels
    sides: dict[float, int]  # side at each scale, pixels
    poolings: Sequence[str]
    # Images of 224 px a forward pass. Smaller images go in more at once.
    batch_size: int
    _waiting: dict[float, list[tuple[NDArray[np.uint8], float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _done: dict[tuple[tuple[View, ...], str], list[Vectors]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _input_res: dict[View, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sample: Sample) -> None:
        """Embed an image at every scale, soon."""
        image = square(sample.image)
        full_gsd_m = sample.gsd_m * image.width / self.full_px
        for scale, side in self.sides.items():
            self._waiting[scale].append((shown(image, side), full_gsd_m))
            at_once = min(int(self.batch_size * (_NORMAL_SIDE_PX / side) ** 2), _MOST_AT_ONCE)
            if len(self._waiting[scale]) >= at_once:
                self._flush(scale)

    def finish(self) -> Iterator[tuple[tuple[View, ...], str, Vectors]]:
        """Yield views, pooling, and their vectors ``(N, D)`` in the order of the images; once.

        At full resolution both GSDs are the same: two views of the same vectors.
        """
        for scale in self.sides:
            self._flush(scale)
        while self._done:
            views, pooling = next(iter(self._done))
            # What was yielded is not kept.
            yield views, pooling, np.concatenate(self._done.pop((views, pooling)))

    def input_res(self, view: View) -> float:
        """Return the GSD given to the model, the median of all images."""
        return float(np.median(self._input_res[view]))

    def _flush(self, scale: float) -> None:
        waiting, side = self._waiting.pop(scale, []), self.sides[scale]
        if not waiting:
            return
        prepare = self.preparation
        pixels = [prepare.tensor(prepare.from_picture(image)) for image, _ in waiting]
        full = [self._gsd(gsd_m, self.full_px) for _, gsd_m in waiting]
        own = [self._gsd(gsd_m, side) for _, gsd_m in waiting]
        rescaled, fixed = View(scale, side, True), View(scale, side, False)
        ways: list[tuple[tuple[View, ...], list[float]]] = [((rescaled,), own), ((fixed,), full)]
        if side == self.full_px:
            ways = [((rescaled, fixed), full)]
        for views, gsds in ways:
            images = [GsdImage(*both) for both in zip(pixels, gsds, strict=True)]
            tokens = list(encode(self.encoder, images, batch_size=len(images)))
            for view in views:
                self._input_res[view] += gsds
            for pooling in self.poolings:
                vectors = np.stack([pooled(one, pooling) for one in tokens])
                self._done[views, pooling].append(vectors)

    def _gsd(self, full_gsd_m: float, side: int) -> float:
        """Return the GSD to give to the model for an image that is shown at ``side`` px."""
        stretch = self.full_px / side
        policy = self.policy if isinstance(self.policy, str) else self.policy * stretch
        return gsd_for_model(policy, full_gsd_m * stretch, side)


def pooled(tokens: ImageTokens | ModelError, pooling: str) -> Vectors:
    """Return ``(D,)``: one vector of an image's tokens; raise `ModelError` if it has none."""
    if isinstance(tokens, ModelError):
        raise tokens
    if tokens.pooled is not None:
        return tokens.pooled
    if pooling == "cls" and tokens.cls is not None:
        return tokens.cls
    if pooling in ("mean", "max") and tokens.patches is not None:
        patches = tokens.patches  # h w D
        vector: Vectors = patches.mean((0, 1)) if pooling == "mean" else patches.max((0, 1))
        return vector
    raise ModelError(f"the model gives no tokens for pooling={pooling!r}; leave it out")


def most_frequent(values: Iterable[int]) -> int:
    """Return the value that occurs most often, the greatest of several."""
    found, times = np.unique(list(values), return_counts=True)
    return int(found[times == times.max()].max())
