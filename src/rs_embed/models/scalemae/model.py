"""The model ``scalemae``: settle its options, find its weights, load its network once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed.errors import CheckpointError, SpecError, UnknownNameError
from rs_embed.models.base import DEVICES
from rs_embed.models.scalemae.config import (
    VARIANTS,
    NetworkConfig,
    check_image_size,
    network_config,
    stated_image_size,
)
from rs_embed.models.scalemae.description import DESCRIPTION, PUBLISHED, RANDOM_INIT
from rs_embed.models.weights import FileDigest, WeightsFile, find_weights
from rs_embed.settings import SCALEMAE_IMG

if TYPE_CHECKING:
    from rs_embed.models.base import Encoder
    from rs_embed.models.scalemae.network import ScaleMae
    from rs_embed.settings import Settings

SEED = 0


@dataclass(frozen=True)
class ScaleMaePlan:
    """Settled options; see `rs_embed.models.base.Plan`."""

    weights: str
    variant: str | None
    loader: str
    normed: bool
    gsd: float | str
    display: str
    image_size: int | None
    image_size_source: str
    precision: str
    device: str
    cache_dir: Path

    def load(self) -> Encoder:
        """Return the encoder; the networks of the last two checkpoints are remembered."""
        found = None
        if self.weights != RANDOM_INIT:
            found = find_weights(self.weights, download=True)
            if found is None:
                raise CheckpointError(f"cannot find the weights {self.weights!r}")
        config, size = self.settle(found)
        file = None if found is None else _FileState.of(found.path)
        # Hashing starts before PyTorch is imported: both take seconds, on different cores.
        digest = None if file is None else _digest(file, self.cache_dir / "sha256.json")
        from rs_embed.models.scalemae.encoder import NativeEncoder, RshfEncoder, resolve_device

        device = resolve_device(self.device)
        describe = partial(self._provenance, found, digest, config, device.type)
        trained = next(
            (w.trained_input_res for w in DESCRIPTION.weights if w.id == self.weights), None
        )
        if self.loader == "rshf":
            if found is None or file is None:
                raise SpecError("got loader='rshf' without weights, expected a hub id or a folder")
            wrapper = _rshf_wrapper(_rshf_source(found), file, device.type)
            return RshfEncoder(wrapper, size, device, trained, describe)
        if file is None:
            network = _random_network(config, device.type)
        else:
            network = _native_network(file, config, device.type)
        bfloat16 = self.precision == "bfloat16"
        return NativeEncoder(network, size, self.normed, bfloat16, trained, describe)

    def _provenance(
        self,
        found: WeightsFile | None,
        digest: FileDigest | None,
        config: NetworkConfig,
        device: str,
    ) -> dict[str, Any]:
        import torch

        return {
            "weights": self.weights,
            "weights_revision": None if found is None else found.revision,
            "weights_sha256": None if digest is None else digest.hexdigest(),
            # Another PyTorch may draw other numbers from the same seed.
            "weights_seed": f"{SEED} (torch {torch.__version__})" if found is None else None,
            "network": None if self.loader == "rshf" else config.to_json(),
            "loader": self.loader,
            "tokens": "normed" if self.normed else "pre_norm",
            "device": device,
            "precision": self.precision,
        }

    def settle(self, found: WeightsFile | None) -> tuple[NetworkConfig, int]:
        """Return network sizes and image size, given what lies beside the weights.

        Raises
        ------
        CheckpointError
            If the config is unusable or contradicts ``variant``.
        SpecError
            If the image size is not a multiple of the patch size.
        """
        stated: Mapping[str, Any] = {} if found is None else found.config
        source = "" if found is None else str(found.path.parent / "config.json")
        config = network_config(stated, source)
        if self.variant is not None:
            sizes = VARIANTS[self.variant]
            if stated and config != replace(sizes, patch_size=config.patch_size):
                raise CheckpointError(
                    f"got variant={self.variant!r} ({sizes}) for weights whose config.json says "
                    f"{config}; leave variant out"
                )
            config = replace(sizes, patch_size=config.patch_size)
        size = self.image_size or stated_image_size(stated, source) or 224
        return config, check_image_size(size, config.patch_size, self.image_size_source)


class ScaleMaeModel:
    """The model as the registry finds it."""

    description = DESCRIPTION

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> ScaleMaePlan:
        """Return the checked plan; see `rs_embed.models.base.Model.plan`."""
        if device not in DEVICES:
            raise UnknownNameError.among("device", device, DEVICES)
        weights = options.get("weights") or settings.scalemae_id
        if not isinstance(weights, str):
            weights = str(weights)
        loader = options.get("loader") or "native"
        asked_size = options.get("image_size")
        plan = ScaleMaePlan(
            weights=weights,
            variant=options.get("variant"),
            loader=loader,
            normed=(options.get("tokens") or ("normed" if loader == "native" else "pre_norm"))
            == "normed",
            gsd=_gsd(options.get("gsd", "metres")),
            display=options.get("display") or "reflectance",
            image_size=settings.scalemae_img if asked_size is None else asked_size,
            image_size_source=SCALEMAE_IMG.name if asked_size is None else "image_size",
            precision=options.get("precision") or "float32",
            device=device,
            cache_dir=settings.cache_dir,
        )
        _check_together(plan)
        return plan


def _check_together(plan: ScaleMaePlan) -> None:
    if plan.loader == "rshf" and plan.normed:
        raise SpecError(
            "got tokens='normed' with loader='rshf', whose tokens come before the final norm; use "
            "loader='native', or tokens='pre_norm'"
        )
    if plan.loader == "rshf" and (plan.weights == RANDOM_INIT or plan.variant):
        raise SpecError(
            "got loader='rshf' with random weights or a variant, expected a hub id or a folder"
        )
    if plan.loader == "rshf" and plan.precision != "float32":
        raise SpecError("got precision='bfloat16' with loader='rshf', expected float32")
    if plan.variant not in (None, "large") and plan.weights == PUBLISHED:
        raise SpecError(
            f"got variant={plan.variant!r}, but no weights are published for it; pass your own "
            "as weights=, or weights='random-init' to try the pipeline without meaning"
        )
    if plan.device in ("cuda", "mps") or plan.precision == "bfloat16":
        from rs_embed.models.scalemae.encoder import resolve_device

        kind = resolve_device(plan.device).type
        if plan.precision == "bfloat16" and kind != "cuda":
            raise SpecError(
                f"got precision='bfloat16' on {kind}, expected CUDA: elsewhere it is slower than "
                "float32"
            )
    # What is on disk already is checked now; what is not, after the download.
    plan.settle(None if plan.weights == RANDOM_INIT else find_weights(plan.weights, download=False))


def _gsd(value: Any) -> float | str:
    if value is None or value == "metres":
        return "metres"
    if value == "relative":
        return "relative"
    if isinstance(value, str):
        raise UnknownNameError.among("gsd", value, ("metres", "relative"))
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise SpecError(f"got gsd={value!r}, expected 'metres', 'relative' or a number above 0")
    return float(value)


@dataclass(frozen=True)
class _FileState:
    """One state of a file: a changed one is another value, so that nothing stale is remembered."""

    path: Path
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> _FileState:
        stat = path.stat()
        return cls(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _digest(file: _FileState, record: Path) -> FileDigest:
    return FileDigest(file.path, record)


@lru_cache(maxsize=2)
def _native_network(file: _FileState, config: NetworkConfig, device: str) -> ScaleMae:
    from rs_embed.models.scalemae.checkpoint import load_network

    return load_network(file.path, config).to(device)


@lru_cache(maxsize=2)
def _random_network(config: NetworkConfig, device: str) -> ScaleMae:
    from rs_embed.models.scalemae.network import ScaleMae

    network = ScaleMae(config)
    network.initialise(SEED)
    return network.to(device).eval().requires_grad_(False)


@lru_cache(maxsize=1)
def _rshf_wrapper(source: str, file: _FileState, device: str) -> Any:  # noqa: ARG001  # cache key
    from rs_embed.models.scalemae.encoder import load_rshf

    return load_rshf(source, device)


def _rshf_source(found: WeightsFile) -> str:
    if found.revision is None and not Path(found.id).expanduser().is_dir():
        raise SpecError(
            f"got weights={found.id!r} with loader='rshf', expected a hub id or a folder"
        )
    return str(found.path.parent)


MODEL = ScaleMaeModel()
