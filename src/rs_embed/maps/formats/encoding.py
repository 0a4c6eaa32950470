"""How tokens are stored: their type, fewer dimensions, and the error of both.

Tokens keep their length: they are not normalised before they are rounded.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rs_embed.errors import ExportError, SpecError, UnknownNameError
from rs_embed.specs import whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.maps.formats.content import MapContent

MapDtype = Literal["float32", "float16", "int8"]
# Value of int8 where there is no token; tokens use -127 to 127.
INT8_NODATA = -128
# Values of tokens that are encoded, or widened to float64, at once.
_VALUES_AT_ONCE = 2**21


@dataclass(frozen=True)
class MapEncoding:
    """How the tokens of a map are stored.

    Parameters
    ----------
    dtype : {"float32", "float16", "int8"}
        Type of the numbers. int8 holds multiples of a scale, one for each dimension. In a GeoTIFF
        float16 takes 16 bits (``NBITS=16``), which GDAL and rasterio read and show as float32.
    pca : int, optional
        Keep this many principal components of the map's own tokens instead of all dimensions.

    Raises
    ------
    UnknownNameError
        If there is no such type.
    SpecError
        If ``pca`` is not a whole number of at least 1.
    """

    dtype: MapDtype = "float32"
    pca: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(MapDtype):
            raise UnknownNameError.among("dtype of a map", self.dtype, get_args(MapDtype))
        if self.pca is not None:
            object.__setattr__(self, "pca", whole("pca", self.pca, 1))

    def check_tokens(self, dimensions: int) -> None:
        """Raise `SpecError` if tokens of so many dimensions cannot be stored like this."""
        if self.pca is not None and self.pca > dimensions:
            raise SpecError(
                f"got pca={self.pca} for tokens of {dimensions} dimensions, expected at most "
                f"{dimensions}"
            )

    def fitted(self, content: MapContent) -> FittedEncoding:
        """Return this encoding, fitted to the tokens of a map, with its error on them.

        Plain float32 reads nothing. The tokens are read once for each of: the covariance of a
        PCA, the scales of int8, and the error.

        Raises
        ------
        SpecError
            If ``pca`` is above the dimensions of a token or the number of tokens, or a value is
            beyond the range of float16.
        ExportError
            If a token holds a NaN beside numbers, or an infinity.
        """
        self.check_tokens(content.dimensions)
        pca = None
        if self.pca is not None:
            pca = principal_components(_token_blocks(content), content.dimensions, self.pca)
        scales = _scales(content, pca) if self.dtype == "int8" else None
        fitted = FittedEncoding(self, content.dimensions, pca, scales, None)
        if pca is None and self.dtype == "float32":
            return fitted
        return replace(fitted, error=_error(content, fitted))


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """An orthogonal basis of the tokens of a map, widest spread first.

    Attributes
    ----------
    components : numpy.ndarray
        ``(k, D)`` float32, rows of length 1; the entry of largest magnitude is positive.
    mean : numpy.ndarray
        ``(D,)`` float32, mean of the tokens.
    explained : numpy.ndarray
        ``(k,)`` float64: share of the tokens' variance along each component.
    """

    components: NDArray[np.float32]
    mean: NDArray[np.float32]
    explained: NDArray[np.float64]

    def projected(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(..., k)`` float32 of ``(..., D)``."""
        components: NDArray[np.float32] = np.matmul(tokens - self.mean, self.components.T)
        return components

    def restored(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the tokens ``(..., D)`` float32 of components ``(..., k)``."""
        tokens: NDArray[np.float32] = values @ self.components + self.mean
        return tokens

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; arrays are base64 of little-endian float32, row by row."""
        return {
            "shape": list(self.components.shape),
            "components": text_of(self.components),
            "mean": text_of(self.mean),
            "explained_variance_ratio": [float(share) for share in self.explained],
        }

    @classmethod
    def from_json(cls, values: Any) -> PrincipalComponents:
        """Return the inverse of `to_json`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is something else.
        """
        count, depth = values["shape"]
        return cls(
            array_of(values["components"]).reshape(count, depth),
            array_of(values["mean"]).reshape(depth),
            np.array(values["explained_variance_ratio"], np.float64),
        )


def text_of(values: NDArray[np.float32]) -> str:
    """Return values as base64 of little-endian float32."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def array_of(text: str) -> NDArray[np.float32]:
    """Return the inverse of `text_of`, with one axis."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


@dataclass(frozen=True, eq=False)
class FittedEncoding:
    """An encoding with everything that decoding needs.

    Attributes
    ----------
    encoding : MapEncoding
        The requested encoding.
    token_dimensions : int
        Length D of a token.
    pca : PrincipalComponents or None
        Basis of the stored components.
    scales : numpy.ndarray or None
        ``(k,)`` float32: value of one step of each stored dimension; None but for int8.
    error : EncodingError or None
        Its error on the map it was fitted to; None for float32 without a PCA.
    """

    encoding: MapEncoding
    token_dimensions: int
    pca: PrincipalComponents | None
    scales: NDArray[np.float32] | None
    error: EncodingError | None

    @property
    def dimensions(self) -> int:
        """Number k of stored dimensions."""
        return self.encoding.pca or self.token_dimensions

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self.encoding.dtype)

    @property
    def nodata(self) -> float:
        """Stored value where there is no token."""
        return INT8_NODATA if self.scales is not None else float("nan")

    def encode(self, strip: NDArray[np.float32]) -> NDArray[Any]:
        """Return ``(n, columns, k)`` to be stored for ``(n, columns, D)`` float32.

        Raises
        ------
        ExportError
            If a token holds a NaN beside numbers, or an infinity.
        """
        valid = valid_tokens(strip).ravel()
        if self.pca is None and self.encoding.dtype == "float32":
            return strip
        tokens = strip.reshape(-1, strip.shape[2])
        stored = np.full((len(tokens), self.dimensions), self.nodata, self.dtype)
        # In parts: intermediate arrays are several times the size of tokens and stored values.
        for part in _parts(tokens):
            stored[part][valid[part]] = self._stored(tokens[part][valid[part]])
        return stored.reshape(*strip.shape[:2], self.dimensions)

    def decode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``(..., k)`` float32 of stored values, NaN where there is no token.

        Components of a PCA stay components; ``pca.restored`` returns tokens.
        """
        decoded: NDArray[np.float32] = values.astype(np.float32)
        if self.scales is not None:
            decoded *= self.scales
            decoded[values == INT8_NODATA] = np.nan
        return decoded

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: type, dimensions and error, without the arrays."""
        return {
            "dtype": self.encoding.dtype,
            "pca": self.encoding.pca,
            "dimensions": self.dimensions,
            "token_dimensions": self.token_dimensions,
            "explained_variance": None if self.pca is None else float(self.pca.explained.sum()),
            "error": None if self.error is None else self.error.to_json(),
        }

    def _stored(self, tokens: NDArray[np.float32]) -> NDArray[Any]:
        """Return ``(n, k)`` to be stored for ``(n, D)`` of tokens."""
        values = tokens if self.pca is None else self.pca.projected(tokens)
        if self.scales is None:
            with np.errstate(over="ignore"):  # fitted() refuses what float16 cannot hold
                cast: NDArray[Any] = values.astype(self.dtype)
            return cast
        stored: NDArray[Any] = np.clip(np.rint(values / self.scales), -127, 127).astype(np.int8)
        return stored


@dataclass(frozen=True)
class EncodingError:
    """How far decoded tokens are from the original ones, over all tokens of a map.

    With a PCA, tokens are restored from the components before they are compared.

    Attributes
    ----------
    tokens : int
        Number of tokens.
    cosine_distance_mean, cosine_distance_max : float or None
        One minus the cosine of the angle between a token and the decoded token; None without
        tokens.
    rmse_relative : float or None
        Root mean square of the differences over the root mean square of the tokens' values; None
        without tokens.
    """

    tokens: int
    cosine_distance_mean: float | None
    cosine_distance_max: float | None
    rmse_relative: float | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(vars(self))


def valid_tokens(strip: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return ``(n, columns)``: where there is a token.

    Raises
    ------
    ExportError
        If a token holds a NaN beside numbers, or an infinity.
    """
    finite = np.isfinite(strip)
    valid: NDArray[np.bool_] = np.all(finite, axis=-1)
    broken = ~valid & ~np.isnan(strip).all(axis=-1)
    if broken.any():
        row, column = np.argwhere(broken)[0]
        raise ExportError(
            f"got a token with {int((~finite[row, column]).sum())} values that are not finite "
            f"numbers (column {column}), expected numbers or NaN in all {strip.shape[-1]}"
        )
    return valid


def _token_blocks(content: MapContent) -> Iterator[NDArray[np.float32]]:
    """Yield ``(n, D)`` of tokens, north to south, in the same parts each time."""
    for strip in content.strips(content.rows_at_once):
        valid = valid_tokens(strip).ravel()
        tokens = strip.reshape(-1, content.dimensions)
        for part in _parts(tokens):
            if valid[part].any():
                yield tokens[part][valid[part]]


def _parts(tokens: NDArray[np.float32]) -> Iterator[slice]:
    """Yield slices of ``(n, D)`` of tokens, of a bounded number of values each."""
    step = max(1, _VALUES_AT_ONCE // tokens.shape[1])
    for start in range(0, len(tokens), step):
        yield slice(start, start + step)


def principal_components(
    blocks: Iterable[NDArray[np.float32]], depth: int, count: int
) -> PrincipalComponents:
    """Return the first ``count`` components of tokens that come in blocks of ``(n, depth)``.

    Raises
    ------
    SpecError
        If there are fewer tokens than components.
    """
    # Differences from a token near the mean: the squares then lose no digits.
    origin: NDArray[np.float64] | None = None
    number, total, squares = 0, np.zeros(depth), np.zeros((depth, depth))
    for tokens in blocks:
        if origin is None:
            origin = tokens.astype(np.float64).mean(axis=0)
        shifted = tokens - origin
        number += len(tokens)
        total += shifted.sum(axis=0)
        squares += shifted.T @ shifted
    if origin is None or number < count:
        raise SpecError(
            f"got pca={count} for a map of {number} tokens, expected at most as many components "
            "as tokens; use a smaller pca=, or none"
        )
    offset = total / number
    spread, axes = np.linalg.eigh(squares / number - np.outer(offset, offset))
    spread = np.clip(spread[::-1], 0, None)
    components = axes.T[::-1][:count]
    largest = np.abs(components).argmax(axis=1)
    signs = np.where(components[np.arange(count), largest] < 0, -1.0, 1.0)
    whole = spread.sum()
    return PrincipalComponents(
        np.ascontiguousarray(components * signs[:, None], np.float32),
        (origin + offset).astype(np.float32),
        spread[:count] / whole if whole > 0 else np.zeros(count),
    )


def _scales(content: MapContent, pca: PrincipalComponents | None) -> NDArray[np.float32]:
    """Return ``(k,)``: the largest magnitude of each stored dimension over 127; 1 for zeros."""
    depth = content.dimensions if pca is None else len(pca.components)
    largest = np.zeros(depth, np.float32)
    for tokens in _token_blocks(content):
        values = tokens if pca is None else pca.projected(tokens)
        largest = np.maximum(largest, np.abs(values).max(axis=0))
    scales = (largest / np.float32(127)).astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1)).astype(np.float32)


def _error(content: MapContent, fitted: FittedEncoding) -> EncodingError:
    number, distances, worst, differences, squares = 0, 0.0, 0.0, 0.0, 0.0
    for tokens in _token_blocks(content):
        stored = fitted._stored(tokens)
        if not np.isfinite(stored).all():
            raise SpecError(
                f"got values beyond the range of {fitted.encoding.dtype} (65504), expected "
                "smaller ones; store float32 or int8"
            )
        values = fitted.decode(stored)
        values = values if fitted.pca is None else fitted.pca.restored(values)
        decoded, original = values.astype(np.float64), tokens.astype(np.float64)
        distance = _cosine_distances(original, decoded)
        number += len(tokens)
        distances += float(distance.sum())
        worst = max(worst, float(distance.max()))
        differences += float(((decoded - original) ** 2).sum())
        squares += float((original**2).sum())
    if number == 0:
        return EncodingError(0, None, None, None)
    relative = float(np.sqrt(differences / squares)) if squares else 0.0
    return EncodingError(number, distances / number, worst, relative)


def _cosine_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    cosine = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return np.clip(np.where(both_zero, 0.0, 1 - cosine), 0, 2)
