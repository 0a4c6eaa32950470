"""How pixels become the input of ScaleMAE: 8 bits of red, green and blue, resized and normalised.

The evaluation pipeline of MAE and ScaleMAE, bit for bit that of torchvision on Pillow images:
``Resize(short side, bicubic) -> CenterCrop -> ToTensor -> Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rs_embed.errors import ImageryError
from rs_embed.models.base import Frame
from rs_embed.models.scalemae.config import MEAN, STD, Display

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Reflectance that becomes 255: everything, or the range of Sentinel-2's true-colour images.
_WHITE: dict[Display, float] = {"reflectance": 1.0, "visual": 0.3}
# Share of the short side that the crop keeps up to 224 px (torchvision's 256 -> 224).
_CROP_SHARE = 224 / 256


@dataclass(frozen=True)
class ScaleMaePreparation:
    """See `rs_embed.models.base.Preparation`; an image is ``(height, width, 3)`` uint8."""

    display: Display

    def frame(self, shape: tuple[int, int], image_size: int) -> Frame:
        """Return the resize of the short side and the crop of the centre.

        The short side becomes ``int(image_size * 256 / 224)`` up to 224 px and ``image_size``
        beyond, the long side in proportion, rounded down (torchvision's ``Resize``); the crop
        starts at ``round((side - image_size) / 2)``, halves to even (its ``CenterCrop``).
        """
        height, width = shape
        short = image_size if image_size > 224 else int(image_size / _CROP_SHARE)
        long = int(short * max(shape) / min(shape))
        resized = (short, long) if height <= width else (long, short)
        top, left = (round((side - image_size) / 2) for side in resized)
        uncropped = "image_size=256" if height == width and short > image_size else ""
        return Frame(resized, top, left, (image_size, image_size), uncropped)

    def image(self, values: NDArray[Any], reflectance: tuple[float, float]) -> NDArray[np.uint8]:
        """Return the display image of ``(3, height, width)`` values, see `to_uint8`."""
        return to_uint8(values, reflectance, self.display)

    def fitted(self, image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
        """Return the image resized and cropped."""
        height, width = frame.resized
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        bottom, right = frame.top + frame.shape[0], frame.left + frame.shape[1]
        return np.asarray(picture.crop((frame.left, frame.top, right, bottom)))

    def check(self, image: NDArray[np.uint8]) -> None:
        """Raise `ImageryError` if an image is black or white throughout."""
        nearly_all = 0.999 * image.size
        white = np.count_nonzero(image == 255) >= nearly_all
        if white or np.count_nonzero(image == 0) >= nearly_all:
            colour = "white" if white else "black"
            raise ImageryError(
                f"the model would see nothing but {colour}; check the units (reflectance_scale, "
                "reflectance_offset) and display"
            )

    def tensor(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return ``(3, height, width)`` float32: ``(image / 255 - mean) / std`` per channel."""
        return normalised(image, MEAN, STD)

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image: it is a picture already."""
        return image

    def from_picture(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the picture: it is an image already."""
        return picture


def to_uint8(
    values: NDArray[Any], reflectance: tuple[float, float], display: Display
) -> NDArray[np.uint8]:
    """Return ``(height, width, 3)`` uint8 of ``(3, height, width)`` values.

    ``clip(value / 10000, 0, 1) * 255``, truncated, in float32; other units and the visual
    stretch change the divisor and the offset.

    Parameters
    ----------
    values : numpy.ndarray
        Red, green, blue; all finite.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    display : {"reflectance", "visual"}
        Whether reflectance 1 or 0.3 becomes 255.
    """
    scale, offset = reflectance
    white = _WHITE[display]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, hence white
        numbers = values.astype(np.float32)
    # Dividing by 10000, not multiplying by 0.0001, is what the contract's arithmetic does.
    unit = numbers / np.float32(white / scale) + np.float32(offset / white)
    image = (np.clip(unit, 0, 1) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def normalised(image: NDArray[np.uint8], mean: Any, std: Any) -> NDArray[np.float32]:
    """Return ``(3, height, width)`` float32: ``(image / 255 - mean) / std`` per channel."""
    unit = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (mean, std))
    result: NDArray[np.float32] = (unit - mean) / std
    return result
