"""What a model declares and what it must do, so that any package can add one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rs_embed.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rs_embed.settings import Settings, Variable

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Option:
    """A keyword argument of ``get_embedding``, and option of the commands, of one model.

    Attributes
    ----------
    name : str
        The keyword; ``image_size`` is ``--image-size`` on the command line, unless the commands
        have an option of that name themselves.
    effect : str
        What it changes, as a sentence: the help text of the option.
    default : str
        What is used if it is not given: a value, or where the value comes from.
    choices : tuple of str
        Values that are names.
    type : {"", "string", "number", "integer", "flag"}
        Type of the values that are not names; empty if only the names are valid.
    minimum : float or None
        Minimum of a number; 0 itself is excluded.
    multiple_of : str
        What an integer must be a multiple of; empty if nothing.
    recorded_as : tuple of str or None
        Keys of ``meta`` in which the fingerprint finds what the option settled to; None is its
        own name, and empty means that the pixels that the model sees show it.
    """

    name: str
    effect: str
    default: str
    choices: tuple[str, ...] = ()
    type: str = ""
    minimum: float | None = None
    multiple_of: str = ""
    recorded_as: tuple[str, ...] | None = None


@dataclass(frozen=True)
class InputContract:
    """The imagery that a model expects.

    Attributes
    ----------
    collection : str
        Default collection.
    bands : tuple of str
        Default bands, in the model's order.
    scale_m, cloudy_pct, composite, fill_value
        Default fetch, see ``SensorSpec``.
    temporal : tuple of str
        Default period, start and (excluded) end.
    values : str
        Units and range of the raw values.
    mean, std : tuple of float
        Normalisation of each band after scaling to 0..1, for catalogues that describe the model;
        empty where it has none.
    """

    collection: str
    bands: tuple[str, ...]
    scale_m: float
    cloudy_pct: float
    composite: str
    fill_value: float
    temporal: tuple[str, str]
    values: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Weights:
    """Published weights: where they are and what one may do with them.

    Attributes
    ----------
    id : str
        Value of the option ``weights``.
    licence : str
        Terms, with their source.
    size : str
        Download, in words.
    trained_input_res : tuple of float or None
        Least and greatest ``input_res_m`` of their training; None if unknown.
    """

    id: str
    licence: str
    size: str
    trained_input_res: tuple[float, float] | None


@dataclass(frozen=True)
class ModelDescription:
    """Everything that can be known of a model without loading it."""

    id: str
    aliases: tuple[str, ...]
    summary: str
    family: str
    publication: str
    patch_size: int
    inputs: InputContract
    outputs: Mapping[str, tuple[str, ...]]
    """Output mode -> its poolings, the default first."""
    input_preps: tuple[str, ...]
    devices: tuple[str, ...]
    options: tuple[Option, ...]
    environment: tuple[Variable, ...]
    weights: tuple[Weights, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        stated: dict[str, Any] = _jsonable(asdict(self))
        return stated

    def check_options(self, given: Mapping[str, Any], arguments: Iterable[str] = ()) -> None:
        """Raise `UnknownNameError` for an unknown option, or an unknown value of one.

        Parameters
        ----------
        given : mapping
            Name of an option -> value.
        arguments : iterable of str
            Arguments of the function that was called, which may be meant instead.
        """
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            if name not in known:
                if not arguments:
                    raise UnknownNameError.among("option", name, known, of=f"model {self.id!r}")
                names = {*known, *arguments} - {"model", "options", "arguments"}
                raise UnknownNameError.among("argument", name, names)
            option = known[name]
            if option.type == "flag" and not isinstance(value, bool | None):
                raise SpecError(f"got {name}={value!r}, expected True or False")
            if value is None or option.type:
                continue  # the plan checks values that are not names
            if isinstance(value, str):
                if value not in option.choices:
                    raise UnknownNameError.among(name, value, option.choices)
            else:
                raise SpecError(
                    f"got {name}={value!r} ({type(value).__name__}), expected one of "
                    f"{', '.join(option.choices)}"
                )


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a model gives for a batch of B images, float32.

    Attributes
    ----------
    cls : numpy.ndarray or None
        ``(B, D)``: the class token, None if the model has none.
    patches : numpy.ndarray or None
        ``(B, h, w, D)``: the patch tokens, row 0 north; None if it exposes only a vector.
    pooled : numpy.ndarray or None
        ``(B, D)``: the vector of a model that pools by itself; None otherwise.
    kind : str
        How the tokens were obtained, for ``meta["tokens_kind"]``.
    """

    cls: NDArray[np.float32] | None
    patches: NDArray[np.float32] | None
    pooled: NDArray[np.float32] | None
    kind: str


class Encoder(Protocol):
    """A loaded model."""

    @property
    def image_size(self) -> int:
        """Side of the square input, pixels."""

    @property
    def patch_size(self) -> int:
        """Side of a token's footprint, pixels of the input."""

    @property
    def trained_input_res(self) -> tuple[float, float] | None:
        """Least and greatest ``input_res`` that the weights were trained on, if known."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """JSON values for ``meta``: weights and their hash, sizes, loader, device, precision."""

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        """Return the tokens of ``pixels`` ``(B, C, H, W)``, each at its own ``input_res_m``.

        Raises
        ------
        ModelError
            If the model cannot embed them. Where memory runs out (``torch.OutOfMemoryError``,
            `MemoryError`), it is called again with fewer images.
        """


@dataclass(frozen=True)
class Frame:
    """How a raster is resized and cropped to a model's input.

    Attributes
    ----------
    resized : tuple of int
        Height and width after the resize, pixels; the same factor on both axes, up to rounding.
    top, left : int
        First row and column of the crop, pixels of the resized image.
    shape : tuple of int
        Height and width of the crop, pixels; multiples of the patch size.
    uncropped : str
        What the caller can state to lose nothing, e.g. ``"image_size=256"``; may be empty.
    """

    resized: tuple[int, int]
    top: int
    left: int
    shape: tuple[int, int]
    uncropped: str = ""


class Preparation(Protocol):
    """How the pixels of a raster become the input of a model. Picklable.

    An *image* is the model's own form of a raster: ``(height, width, channels)``, of any dtype.
    Every pixel of it follows from that pixel of the raster alone, so that windows of an image are
    images of windows.
    """

    def frame(self, shape: tuple[int, int], image_size: int) -> Frame:
        """Return how a raster of ``shape`` pixels is resized and cropped."""

    def image(self, values: NDArray[Any], reflectance: tuple[float, float]) -> NDArray[Any]:
        """Return the image of ``(bands, height, width)`` values of any numeric dtype.

        Reflectance is ``value * reflectance[0] + reflectance[1]``. Invalid pixels have been
        filled from their nearest valid neighbour.
        """

    def fitted(self, image: NDArray[Any], frame: Frame) -> NDArray[Any]:
        """Return the image resized and cropped as ``frame`` says."""

    def check(self, image: NDArray[Any]) -> None:
        """Raise `ImageryError` if there is nothing to see in an image, or in some of its pixels."""

    def tensor(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``(channels, height, width)`` float32: the input of the network."""

    def picture(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Return ``(height, width, 3)`` uint8: the image as people look at it."""

    def from_picture(self, picture: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the image of a ``(height, width, 3)`` uint8 picture in red, green, blue.

        Raises
        ------
        ModelError
            If the model cannot see pictures, since it needs other bands.
        """


class Plan(Protocol):
    """A model with its options settled and checked, not loaded yet. Picklable.

    It may have ``notes``, a tuple of text: warnings about its options; ``slots``, how many threads
    may call `Encoder.encode` at the same time, if that is faster; and ``map_tile_size``, the side
    of the windows of maps, pixels, where it differs from ``image_size``.
    """

    @property
    def preparation(self) -> Preparation:
        """How pixels become its input."""

    @property
    def gsd(self) -> float | str:
        """``"metres"``, ``"relative"``, or the number passed to the model as its GSD."""

    @property
    def image_size(self) -> int:
        """Side of the square input, pixels, as far as it is known without a download."""

    @property
    def patch_size(self) -> int:
        """Side of a token's footprint, as far as it is known without a download."""

    @property
    def sizes_known(self) -> bool:
        """Whether a download can no longer change these sizes."""

    @property
    def batch_size(self) -> int:
        """Images per forward pass that suit the device, where nobody states them."""

    @property
    def settled(self) -> Mapping[str, Any]:
        """JSON values that identify the options: equal for requests that mean the same.

        An option that is left out has the value that it defaults to.
        """

    @property
    def input_meta(self) -> Mapping[str, Any]:
        """JSON values for ``meta`` that say how pixels become the input."""

    def load(self) -> Encoder:
        """Return the loaded model; the last ones loaded are remembered.

        Raises
        ------
        CheckpointError
            If the weights are missing or unusable.
        """


@runtime_checkable
class Model(Protocol):
    """What an entry point of the group ``rs_embed.models`` names."""

    description: ModelDescription

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> Plan:
        """Return the plan for options that passed ``description.check_options``.

        Everything that can be checked without a download is checked here. ``device`` is one of
        `DEVICES`, or a card such as ``"cuda:1"``.

        Raises
        ------
        SpecError
            If a value cannot be used.
        ModelError
            If the device is not available.
        """


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value
