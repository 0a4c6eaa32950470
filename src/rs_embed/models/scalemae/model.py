"""The model ``scalemae``: settle its options, find its weights, load its network once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rs_embed.addresses import path_of
from rs_embed.errors import CheckpointError, SpecError
from rs_embed.models.devices import check_device, resolve_device
from rs_embed.models.records import Records
from rs_embed.models.scalemae.config import (
    VARIANTS,
    Display,
    NetworkConfig,
    check_image_size,
    checked_gsd,
    network_config,
    stated_display,
    stated_gsd,
    stated_image_size,
    stated_input_res,
    stated_map_tile_size,
)
from rs_embed.models.scalemae.description import DESCRIPTION, PUBLISHED, RANDOM_INIT, TINY
from rs_embed.models.stored_weights import StoredWeights
from rs_embed.models.weights import FileDigest, WeightsFile, obtain_weights, weights_on_disk
from rs_embed.network.stores import is_store
from rs_embed.settings import SCALEMAE_IMG

if TYPE_CHECKING:
    from rs_embed.models.base import Encoder
    from rs_embed.models.scalemae.network import ScaleMae
    from rs_embed.models.scalemae.preparation import ScaleMaePreparation
    from rs_embed.settings import Settings

Value = TypeVar("Value")
SEED = 0
DEFAULT_IMAGE_SIZE = 224
DEFAULT_DISPLAY: Display = "reflectance"
DEFAULT_GSD: float | str = "metres"
# Threads that ask for the same network wait for the first to load it.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class ScaleMaePlan:
    """Settled options; see `rs_embed.models.base.Plan`."""

    weights: str
    variant: str | None
    loader: str
    runtime: str
    normed: bool
    stated_gsd: float | str | None
    stated_display: Display | None
    stated_size: Any
    image_size_from: str
    stated_precision: str
    device: str
    records_dir: Path
    stored: StoredWeights | None = None  # where ``weights`` is a URL

    @property
    def preparation(self) -> ScaleMaePreparation:
        """How pixels become the input."""
        from rs_embed.models.scalemae.preparation import ScaleMaePreparation

        return ScaleMaePreparation(self._display[0])

    @property
    def gsd(self) -> float | str:
        """``"metres"``, ``"relative"``, or the number passed to the model."""
        return self._gsd[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the stated options contradicts the weights."""
        own = self._own[0]
        if None in (self.stated_display, own) or self.stated_display == own:
            return ()
        return (
            f"display={self.stated_display!r} was used as stated, but the weights "
            f"{self.weights!r} expect {own!r}; leave display out",
        )

    @property
    def settled(self) -> Mapping[str, Any]:
        """What identifies the options; a variant is known by the sizes of its network."""
        config, image_size = self._settle(self._on_disk())
        on_disk = path_of(self.weights).exists()
        return {
            "weights": os.path.abspath(self.weights) if on_disk else self.weights,
            "network": config.to_json(),
            "loader": self.loader,
            "runtime": self.runtime,
            "tokens": "normed" if self.normed else "pre_norm",
            "gsd": self.gsd,
            "display": self._display[0],
            "image_size": image_size,
            "precision": self.precision,
        }

    @property
    def precision(self) -> str:
        """Precision of matrix products, ``"float32"`` or ``"bfloat16"``."""
        return self._precision[0]

    @property
    def input_meta(self) -> Mapping[str, Any]:
        """What is recorded of how pixels become the input, and of who decided it."""
        if self.stated_size is not None:
            size_source = "stated" if self.image_size_from == "image_size" else "environment"
        else:
            size_source = "default" if self._own[2] is None else "weights"
        return {
            "display": self._display[0],
            "display_source": self._display[1],
            "gsd_source": self._gsd[1],
            "image_size_source": size_source,
        }

    @property
    def image_size(self) -> int:
        """Side of the input, as far as it is known without a download."""
        return self._settle(self._on_disk())[1]

    @property
    def map_tile_size(self) -> int | None:
        """Side of the windows of maps, if the weights state one and nobody an input size."""
        return None if self.stated_size is not None else self._own[3]

    @property
    def patch_size(self) -> int:
        """Side of a token's footprint, as far as it is known without a download."""
        return self._settle(self._on_disk())[0].patch_size

    @property
    def batch_size(self) -> int:
        """Images per forward pass that suit the device."""
        from rs_embed.models.scalemae.encoder import default_batch_size

        config, image_size = self._settle(self._on_disk())
        return default_batch_size(self.device, image_size, config.patch_size)

    @property
    def slots(self) -> int:
        """Forward passes that may be under way at once: on CUDA, one of them is copied."""
        on_cuda = self.loader == "native" and resolve_device(self.device).type == "cuda"
        return 2 if on_cuda else 1

    @property
    def sizes_known(self) -> bool:
        """Whether a download can no longer change these sizes."""
        return self.weights == RANDOM_INIT or self._on_disk() is not None

    def load(self) -> Encoder:
        """Return the encoder; the networks of the last two checkpoints are remembered."""
        with _LOADING:
            encoder = self._load()
            if self.runtime == "torch":
                return encoder
            from rs_embed.models.scalemae.onnx_blocks import on_onnx

            return on_onnx(encoder)

    def _load(self) -> Encoder:
        if self.weights == RANDOM_INIT:
            return self._load_random()
        found = obtain_weights(str(self.stored.download()) if self.stored else self.weights)
        config, size = self._settle(found)
        file = _FileState.of(found.path)
        # Hashing starts before PyTorch is imported: both take seconds, on different cores.
        digest = _digest(file, found.announced_sha256, self.records_dir / "sha256.json")
        from rs_embed.models.scalemae.encoder import NativeEncoder, RshfEncoder

        device = resolve_device(self.device)
        describe = partial(self._provenance, found, digest, config, device.type)
        published = {weights.id: weights for weights in DESCRIPTION.weights}
        known = published.get(self.weights.partition("@")[0])
        trained = stated_input_res(*_config_of(found))
        if trained is None and known is not None:
            trained = known.trained_input_res
        if self.loader == "rshf":
            wrapper = _rshf_wrapper(*_rshf_source(found), file, str(device))
            return RshfEncoder(wrapper, size, device, trained, describe)
        network = _native_network(file, config, str(device), self.precision)
        return NativeEncoder(network, size, self.normed, self._autocast, trained, describe)

    def _load_random(self) -> Encoder:
        from rs_embed.models.scalemae.encoder import NativeEncoder

        config, size = self._settle(None)
        device = resolve_device(self.device)
        describe = partial(self._provenance, None, None, config, device.type)
        network = _random_network(config, str(device), self.precision)
        return NativeEncoder(network, size, self.normed, self._autocast, None, describe)

    @property
    def _autocast(self) -> bool:
        return self.precision == "bfloat16" and resolve_device(self.device).type == "cuda"

    @property
    def _precision(self) -> tuple[str, str | None]:
        """Precision, and how it was chosen if nobody stated it; remembered."""
        if self.stated_precision != "auto":
            return self.stated_precision, None
        chosen: tuple[str, str] | None = self.__dict__.get("_chosen_precision")
        if chosen is None:
            from rs_embed.models.scalemae.precision import settled_precision

            config, _ = self._settle(self._on_disk())
            records = Records(self.records_dir / "precision.json")
            chosen = settled_precision(resolve_device(self.device).type, config, records)
            self.__dict__["_chosen_precision"] = chosen
        return chosen

    @property
    def _display(self) -> tuple[Display, str]:
        return _decided(self.stated_display, self._own[0], DEFAULT_DISPLAY)

    @property
    def _gsd(self) -> tuple[float | str, str]:
        return _decided(self.stated_gsd, self._own[1], DEFAULT_GSD)

    @property
    def _own(self) -> tuple[Display | None, float | str | None, int | None, int | None]:
        """Display, GSD and sizes that the weights state; remembered once they are on disk."""
        own = self.__dict__.get("_remembered")
        if own is None:
            found = self._on_disk()
            config, source = _config_of(found)
            own = (
                stated_display(config, source),
                stated_gsd(config, source),
                stated_image_size(config, source),
                stated_map_tile_size(config, source),
            )
            if found is not None:
                self.__dict__["_remembered"] = own
        return own

    def _on_disk(self) -> WeightsFile | None:
        if self.stored is not None:
            return weights_on_disk(str(self.stored.folder)) if self.stored.on_disk() else None
        return None if self.weights == RANDOM_INIT else weights_on_disk(self.weights)

    def _settle(self, found: WeightsFile | None) -> tuple[NetworkConfig, int]:
        """Return network sizes and image size, given the files beside the weights.

        Raises
        ------
        CheckpointError
            If the config is unusable or contradicts ``variant``.
        SpecError
            If the image size is not a multiple of the patch size.
        """
        stated, source = _config_of(found)
        config = network_config(stated, source)
        if self.variant is not None:
            sizes = VARIANTS[self.variant]
            if stated and config != replace(sizes, patch_size=config.patch_size):
                raise CheckpointError(
                    f"got variant={self.variant!r} ({sizes}) for weights whose config.json says "
                    f"{config}; leave variant out"
                )
            config = replace(sizes, patch_size=config.patch_size)
        if self.stated_size is not None:
            return config, check_image_size(
                self.stated_size, config.patch_size, self.image_size_from
            )
        own_size = stated_image_size(stated, source)
        name = "image_size" if "image_size" in stated else "img_size"
        if own_size is not None:
            return config, check_image_size(own_size, config.patch_size, f"{source}: {name}")
        return config, check_image_size(DEFAULT_IMAGE_SIZE, config.patch_size, "image_size")

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
            "weights_file": None if found is None else found.path.name,
            "weights_revision": None if found is None else found.revision,
            "weights_sha256": None if digest is None else digest.hexdigest(),
            # Another PyTorch may draw other numbers from the same seed.
            "weights_seed": f"{SEED} (torch {torch.__version__})" if found is None else None,
            "network": None if self.loader == "rshf" else config.to_json(),
            "loader": self.loader,
            "runtime": self.runtime,
            "tokens": "normed" if self.normed else "pre_norm",
            "device": device,
            "precision": self.precision,
            **({} if self._precision[1] is None else {"precision_source": self._precision[1]}),
        }


def _config_of(found: WeightsFile | None) -> tuple[Mapping[str, Any], str]:
    """Return the config beside weights, and its path for messages."""
    return ({}, "") if found is None else (found.config, str(found.path.parent / "config.json"))


def _decided(stated: Value | None, of_weights: Value | None, default: Value) -> tuple[Value, str]:
    """Return the value that counts, and who decided it."""
    if stated is not None:
        return stated, "stated"
    return (default, "default") if of_weights is None else (of_weights, "weights")


class ScaleMaeModel:
    """The model as the registry finds it."""

    description = DESCRIPTION

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> ScaleMaePlan:
        """Return the checked plan; see `rs_embed.models.base.Model.plan`."""
        check_device(device)
        loader = options.get("loader") or "native"
        default_tokens = "normed" if loader == "native" else "pre_norm"
        runtime = options.get("runtime") or "torch"
        if runtime == "onnx":
            _check_onnx(loader, options.get("precision") or "float32", device)
        asked_size = options.get("image_size")
        weights = _weights(options.get("weights"), options.get("variant"), settings)
        records_dir = settings.records_dir
        plan = ScaleMaePlan(
            weights=weights,
            variant=options.get("variant"),
            loader=loader,
            runtime=runtime,
            normed=(options.get("tokens") or default_tokens) == "normed",
            stated_gsd=None if options.get("gsd") is None else checked_gsd(options["gsd"]),
            stated_display=options.get("display"),
            stated_size=settings.scalemae_img if asked_size is None else asked_size,
            image_size_from=SCALEMAE_IMG.name if asked_size is None else "image_size",
            stated_precision=options.get("precision") or "float32",
            device=device,
            records_dir=records_dir,
            stored=StoredWeights.at(weights, records_dir) if is_store(weights) else None,
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
    if plan.loader == "rshf" and plan.stated_precision != "float32":
        raise SpecError(
            f"got precision={plan.stated_precision!r} with loader='rshf', expected 'float32'"
        )
    if plan.variant not in (None, "large") and plan.weights == PUBLISHED:
        raise SpecError(
            f"got variant={plan.variant!r}, but no weights are published for it; pass your own "
            "as weights=, or weights='random-init' to try the pipeline without meaning"
        )
    if plan.device not in ("auto", "cpu") or plan.stated_precision != "float32":
        from rs_embed.models.scalemae.precision import check_precision

        check_precision(plan.stated_precision, resolve_device(plan.device).type)
    _ = (
        plan.image_size,
        plan.gsd,
    )  # what is on disk already is checked now; what is not, after the download


def _check_onnx(loader: str, precision: str, device: str) -> None:
    from rs_embed.models.scalemae.onnx_blocks import require_onnx

    kind = resolve_device("auto").type if device == "auto" else device
    for name, value, expected in (
        ("loader", loader, "native"), ("precision", precision, "float32"), ("device", kind, "cpu"),
    ):  # fmt: skip
        if value != expected:
            raise SpecError(
                f"got {name}={value!r} with runtime='onnx', expected {name}={expected!r}; or use "
                "runtime='torch'"
            )
    require_onnx()


def _weights(value: Any, variant: str | None, settings: Settings) -> str:
    if value is None and variant == "tiny" and settings.scalemae_id == PUBLISHED:
        return TINY  # the published ones are of another size
    if value is None:
        return settings.scalemae_id
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise SpecError(
            f"got weights={value!r}, expected a hub id, a folder, a file, a URL or {RANDOM_INIT!r}"
        )
    return os.fspath(value)


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
def _digest(file: _FileState, announced: str | None, record: Path) -> FileDigest:
    return FileDigest(file.path, record, announced)


@lru_cache(maxsize=2)
def _native_network(
    file: _FileState, config: NetworkConfig, device: str, precision: str
) -> ScaleMae:
    from rs_embed.models.scalemae.checkpoint import load_network

    return _placed(load_network(file.path, config), device, precision)


def _placed(network: ScaleMae, device: str, precision: str) -> ScaleMae:
    """Return the network on its device, with weights in their precision."""
    from rs_embed.models.scalemae.precision import lower

    # On CUDA it is cast as it computes.
    return lower(network) if (device, precision) == ("cpu", "bfloat16") else network.to(device)


@lru_cache(maxsize=2)
def _random_network(config: NetworkConfig, device: str, precision: str) -> ScaleMae:
    from rs_embed.models.scalemae.network import ScaleMae

    network = ScaleMae(config)
    network.initialise(SEED)
    return _placed(network.eval().requires_grad_(False), device, precision)


@lru_cache(maxsize=1)
def _rshf_wrapper(
    source: str,
    revision: str | None,
    file: _FileState,  # noqa: ARG001  # another state of the file is another wrapper
    device: str,
) -> Any:
    from rs_embed.models.scalemae.encoder import load_rshf

    return load_rshf(source, revision, device)


def _rshf_source(found: WeightsFile) -> tuple[str, str | None]:
    """Return what ``from_pretrained`` takes: hub id and revision, or a folder."""
    if found.revision is not None:
        return found.id.partition("@")[0], found.revision
    if not path_of(found.id).expanduser().is_dir():
        raise SpecError(
            f"got weights={found.id!r} with loader='rshf', expected a hub id or a folder"
        )
    return str(found.path.parent), None


MODEL = ScaleMaeModel()
