"""Run images through a network: the only place that calls it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.errors import GsdWarning, ModelError, Note
from rs_embed.models.base import Tokens
from rs_embed.models.devices import is_out_of_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.models.base import Encoder, Preparation

_log = logging.getLogger("rs_embed")
# A GSD that is further outside the range of the training than by this factor deserves a warning.
_FAR_FACTOR = 4


@dataclass(frozen=True, eq=False)
class GsdImage:
    """The input of a network for one image.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(channels, height, width)`` float32.
    input_res : float
        The GSD that the model is given with it.
    """

    pixels: NDArray[np.float32]
    input_res: float


def network_input(preparation: Preparation, image: NDArray[Any], input_res: float) -> GsdImage:
    """Return the input of the network for a model's image ``(height, width, channels)``.

    Raises
    ------
    ModelError
        If the preparation gives anything but float32 of the same height and width.
    """
    pixels = preparation.tensor(image)
    dtype, shape = getattr(pixels, "dtype", type(pixels).__name__), np.shape(pixels)
    if dtype != np.float32 or len(shape) != 3 or shape[1:] != image.shape[:2]:
        raise ModelError(
            f"the preparation of the model returned {dtype} of shape {shape} for an image of shape "
            f"{image.shape}, expected float32 (channels, height, width)"
        )
    return GsdImage(pixels, input_res)


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """What a model gives for one image, float32.

    Attributes
    ----------
    cls : numpy.ndarray or None
        ``(D,)``: the class token.
    patches : numpy.ndarray or None
        ``(h, w, D)``: the patch tokens as the model gave them, row 0 north; see `patch_tokens`.
    pooled : numpy.ndarray or None
        ``(D,)``: the vector of a model that pools by itself.
    kind : str
        How the tokens were obtained, for ``meta["tokens_kind"]``.
    lattice : tuple of int
        Rows and columns of patches that the image has.
    """

    cls: NDArray[np.float32] | None
    patches: NDArray[np.float32] | None
    pooled: NDArray[np.float32] | None
    kind: str
    lattice: tuple[int, int]

    def patch_tokens(self, what: str) -> NDArray[np.float32]:
        """Return ``(h, w, D)``: one token for each patch of the image.

        Parameters
        ----------
        what : str
            What they are needed for, for the message.

        Raises
        ------
        ModelError
            If the model gives no patch tokens, or another number of them, so that their place is
            unknown.
        """
        if self.patches is None:
            raise ModelError(
                f"got {self.kind} output without patch tokens, which {what} needs; use "
                "OutputSpec.pooled(), or with scalemae loader='native'"
            )
        if self.patches.shape[:2] != self.lattice:
            raise ModelError(
                f"got {self.patches.shape[0]} x {self.patches.shape[1]} patch tokens, expected "
                f"{self.lattice[0]} x {self.lattice[1]}: their place is unknown; with scalemae "
                "use loader='native'"
            )
        return self.patches


@dataclass(frozen=True)
class Capacity:
    """How many images of a shape fit the memory of the device, where too many did not."""

    most: dict[tuple[int, ...], int] = field(default_factory=dict)

    def halved(self, images: Sequence[GsdImage]) -> int:
        """Return how many go at once from now on, since all of these did not fit."""
        shape, half = images[0].pixels.shape, (len(images) + 1) // 2
        self.most[shape] = half
        if len(images) > 1:
            _log.info(
                "%d images of %d x %d px do not fit the memory of the device at once: %d do now",
                len(images), *shape[1:], half,
            )  # fmt: skip
        return half


def encode(
    encoder: Encoder,
    images: Sequence[GsdImage],
    *,
    batch_size: int,
    capacity: Capacity | None = None,
) -> Iterator[ImageTokens | ModelError]:
    """Yield the tokens of each image, or the error that prevents them, in order.

    After a failure the images of a batch run one by one: none fails because of another. Where the
    memory of the device runs out, the batch is halved.

    Parameters
    ----------
    encoder : Encoder
        The loaded model.
    images : sequence of GsdImage
        All of one shape; each with its own GSD.
    batch_size : int
        Images per forward pass.
    capacity : Capacity, optional
        What earlier calls with this encoder have found; kept up to date.
    """
    known = Capacity() if capacity is None else capacity
    start = 0
    while start < len(images):
        size = min(batch_size, known.most.get(images[0].pixels.shape, batch_size))
        yield from _batch(encoder, images[start : start + size], known)
        start += size


def _batch(
    encoder: Encoder, images: Sequence[GsdImage], capacity: Capacity
) -> Iterator[ImageTokens | ModelError]:
    error: ModelError | None = None
    at_once = 1
    try:
        tokens = _checked(
            encoder.encode(
                np.stack([image.pixels for image in images]),  # B C H W
                [image.input_res for image in images],
            ),
            len(images),
        )
    except ModelError as exc:
        error = exc
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        error, at_once = _does_not_fit(images[0], exc), capacity.halved(images)
    if error is not None and len(images) == 1:
        yield error
        return
    if error is not None:  # outside of the handler: errors of single images stand for themselves
        yield from encode(encoder, images, batch_size=at_once, capacity=capacity)
        return
    height, width = images[0].pixels.shape[1:]
    lattice = height // encoder.patch_size, width // encoder.patch_size
    for number in range(len(images)):
        cls, patches, pooled = (
            None if part is None else part[number]
            for part in (tokens.cls, tokens.patches, tokens.pooled)
        )
        yield ImageTokens(cls, patches, pooled, tokens.kind, lattice)


def _does_not_fit(image: GsdImage, exc: Exception) -> ModelError:
    height, width = image.pixels.shape[1:]
    reason = next(iter(str(exc).splitlines()), type(exc).__name__)
    return ModelError(
        f"one image of {height} x {width} px does not fit the memory of the device ({reason}); use "
        "a smaller image_size or tile_size, end what else uses the device, or use device='cpu'"
    )


def _checked(tokens: Any, count: int) -> Tokens:
    """Return what an encoder gave for ``count`` images; raise `ModelError` if it is unusable."""
    if not isinstance(tokens, Tokens):
        raise ModelError(f"the model returned {type(tokens).__name__}, expected Tokens")
    for name, axes in (("cls", 2), ("patches", 4), ("pooled", 2)):
        part = getattr(tokens, name)
        if part is None:
            continue
        shape = getattr(part, "shape", None)
        if (
            not isinstance(part, np.ndarray)
            or part.dtype != np.float32
            or part.ndim != axes
            or len(part) != count
        ):
            raise ModelError(
                f"the model returned {name} of {getattr(part, 'dtype', type(part).__name__)} and "
                f"shape {shape} for {count} images, expected float32 with {axes} axes, the first "
                "of them the images"
            )
        if not np.isfinite(part).all():
            raise ModelError(
                f"the model returned {int((~np.isfinite(part)).sum())} values that are not finite; "
                "the weights are damaged, or the precision is too low for them"
            )
    return tokens


def gsd_notes(input_res: float, scale_m: float, encoder: Encoder) -> Iterator[Note]:
    """Yield a warning where the GSD is far from what the weights were trained on.

    Parameters
    ----------
    input_res : float
        The GSD that the model is given.
    scale_m : float
        Ground metres per pixel of the imagery: what is enlarged shows no more.
    encoder : Encoder
        The loaded model.
    """
    if encoder.trained_input_res is None:
        return
    low, high = encoder.trained_input_res
    # A wide range is that of the images; a narrow one, of how they were cropped.
    tolerance = _FAR_FACTOR if high < low * _FAR_FACTOR else 1
    far = "far from" if tolerance > 1 else "outside"
    training = f"{far} the {low:g} to {high:g} of its training"
    if not low / tolerance <= input_res <= high * tolerance:
        finer = "smaller" if input_res > high else "larger"
        yield Note(
            f"the GSD of the model's input is {input_res:.4g}, {training}; use a {finer} scale_m "
            "or place, or gsd='relative'",
            GsdWarning,
        )
    elif scale_m > high * tolerance:
        yield Note(
            f"the GSD of the imagery is {scale_m:.4g} m, {training}: enlarged to {input_res:.4g}, "
            "it shows the model no more detail; use finer imagery, or a smaller scale_m",
            GsdWarning,
        )
