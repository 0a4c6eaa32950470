"""A model as another package brings it: 12 float bands, patches of 4 px, and options of its own.

A patch token is the mean reflectance of its footprint in every band, times the option ``gain``, and
then the GSD. It neither resizes nor normalises, and looks like its bands 4, 3 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rs_embed import ImageryError, ModelError, SpecError
from rs_embed.models.base import Frame, InputContract, ModelDescription, Option, Tokens

PATCH = 4
BANDS = tuple(f"B{number:02}" for number in range(1, 13))


@dataclass(frozen=True)
class Floats:
    """An image is ``(height, width, 12)`` float32 reflectance."""

    def frame(self, shape, image_size):
        height, width = (min(side, image_size) // PATCH * PATCH for side in shape)
        top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
        return Frame(shape, top, left, (height, width))

    def image(self, values, reflectance):
        scale, offset = reflectance
        return (values * np.float64(scale) + offset).astype(np.float32).transpose(1, 2, 0)

    def fitted(self, image, frame):
        rows = slice(frame.top, frame.top + frame.shape[0])
        return image[rows, frame.left : frame.left + frame.shape[1]]

    def check(self, image):
        if np.ptp(image) == 0:
            raise ImageryError("all bands have the same reflectance everywhere")

    def tensor(self, image):
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def picture(self, image):
        return (image[..., [3, 2, 1]].clip(0, 0.3) / 0.3 * 255).astype(np.uint8)

    def from_picture(self, picture):
        raise ModelError("a picture has 3 bands, expected 12")


@dataclass
class Means:
    image_size: int
    gain: int
    patch_size: int = PATCH
    trained_input_res: tuple[float, float] | None = None

    @property
    def provenance(self):
        return {"weights": "none", "gain": self.gain}

    def encode(self, pixels, input_res_m):
        count, bands, height, width = pixels.shape
        blocks = pixels.reshape(count, bands, height // PATCH, PATCH, width // PATCH, PATCH)
        means = blocks.mean((3, 5), dtype=np.float64).transpose(0, 2, 3, 1) * self.gain
        gsd = np.broadcast_to(np.reshape(input_res_m, (-1, 1, 1, 1)), (*means.shape[:3], 1))
        return Tokens(None, np.concatenate([means, gsd], 3).astype(np.float32), None, "means")


@dataclass(frozen=True)
class Plan:
    gain: int
    image_size: int
    gsd: float | str = "metres"
    patch_size: int = PATCH
    batch_size: int = 5
    sizes_known: bool = True

    @property
    def preparation(self):
        return Floats()

    @property
    def settled(self):
        return {"gain": self.gain, "side": self.image_size}

    @property
    def input_meta(self):
        return {"units": "reflectance"}

    def load(self):
        return Means(self.image_size, self.gain)


class TwelveBands:
    description = ModelDescription(
        id="twelve_bands",
        aliases=(),
        summary="mean reflectance of 12 bands",
        family="Means",
        publication="none",
        patch_size=PATCH,
        inputs=InputContract(
            collection="COPERNICUS/S2_SR_HARMONIZED",
            bands=BANDS,
            scale_m=20,
            cloudy_pct=30,
            composite="median",
            fill_value=0,
            temporal=("2022-06-01", "2022-09-01"),
            values="surface reflectance as digital numbers 0..10000",
        ),
        outputs={"pooled": ("mean", "max"), "grid": ()},
        input_preps=("resize", "tile", "auto"),
        devices=("auto", "cpu"),
        options=(
            Option("gain", "factor of all reflectance", "1", type="integer", minimum=1),
            Option("side", "greatest side of an image, px", "64", type="integer", recorded_as=()),
        ),
        environment=(),
        weights=(),
    )

    def plan(self, options, *, device, settings):
        gain = options.get("gain") or 1
        if not isinstance(gain, int) or gain < 1:
            raise SpecError(f"got gain={gain!r}, expected a whole number of at least 1")
        return Plan(gain, options.get("side") or 64)


MODEL = TwelveBands()
