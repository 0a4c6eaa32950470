"""The loop: from a configuration to a checkpoint, exactly resumable at every step."""

from __future__ import annotations

import errno
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rs_embed.errors import (
    CheckpointError,
    ExportError,
    Note,
    RsEmbedWarning,
    TrainingError,
    give_warnings,
)
from rs_embed.files.writing import written
from rs_embed.models.devices import resolve_device
from rs_embed.models.scalemae.checkpoint import load_network
from rs_embed.models.scalemae.config import network_config
from rs_embed.models.scalemae.description import DESCRIPTION
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.models.weights import obtain_weights
from rs_embed.parallel.pipeline import ordered
from rs_embed.progress import Bar
from rs_embed.training.colour import altered
from rs_embed.training.config import ColourConfig, PretrainConfig, hidden_patches, learning_rate
from rs_embed.training.metrics import Metrics
from rs_embed.training.objective import Losses, Objective
from rs_embed.training.packing import Tiles, packed
from rs_embed.training.reconstructions import draw_reconstructions
from rs_embed.training.release import write_checkpoint
from rs_embed.training.state import Training, check_state, read_state, write_state
from rs_embed.training.views import Crops, Views, random_masks, take

_CROPS, _ORDER = 0, 1  # streams of random numbers
_STATE = "state.safetensors"
# What network file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@dataclass(frozen=True)
class Report:
    """Outcome of a run.

    Attributes
    ----------
    checkpoint : pathlib.Path
        Folder of the encoder's weights and ``config.json``; usable as ``weights=``.
    step : int
        Updates so far, over all runs.
    resumed_at : int
        How many of them earlier runs had made.
    steps : int
        Updates in all.
    seconds : float
        What they took, over all runs.
    interrupted : bool
        Whether a signal ended it before its last step.
    """

    checkpoint: Path
    step: int
    resumed_at: int
    steps: int
    seconds: float
    interrupted: bool


def pretrain(config: PretrainConfig, *, progress: bool | None = None) -> Report:
    """Train until ``config.optimiser.steps``, from where the last run in the folder stopped.

    The folder then holds ``<name>/model.safetensors`` and ``<name>/config.json`` (the encoder,
    averaged weights in float16), ``state.safetensors`` (everything that the next step depends
    on), ``metrics.jsonl``, and ``pictures/``. SIGINT, SIGTERM and ``config.run.minutes`` end the
    run after the step under way, with its state kept.

    Parameters
    ----------
    config : PretrainConfig
        The run.
    progress : bool or None
        Whether a bar counts the steps; None where standard error is a terminal.

    Raises
    ------
    SpecError
        If the folder is inside a source.
    DatasetError
        If a source is empty or holds an unreadable image.
    CheckpointError
        If the folder holds the state of another run, or the initial weights do not fit.
    TrainingError
        If the loss is not finite any more (the last checkpoint is kept), or another run is using
        the folder.
    ExportError
        If the folder cannot be written, or the disk is full.
    """
    folder = Path(config.run.folder)
    device = resolve_device(config.run.device)
    with _locked(folder):
        state = folder / _STATE
        if state.exists():
            check_state(state, config.what_is_learnt())  # before hours of packing
        tiles = packed(config.data, folder, progress=progress)
        run = _Run(config, folder, device, tiles)
        begun_at = run.training.step
        with _stop_signals() as stopped, Bar(progress, unit="step", total=None) as bar:
            bar.expect(config.optimiser.steps)
            bar.advance(begun_at)
            for _ in run.steps(stopped):
                bar.advance()
            interrupted = stopped() and run.training.step < config.optimiser.steps
    return Report(
        folder / config.name,
        run.training.step,
        begun_at,
        config.optimiser.steps,
        run.training.seconds,
        interrupted,
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and keep other runs out; the lock ends with the process."""
    lock = FileLock(folder / "run.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as exc:
        raise TrainingError(
            f"another run is using {folder}; wait for it to end, or choose another run.folder"
        ) from exc
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise ExportError(f"cannot use the folder {folder}: {exc}; choose another one") from exc
        message = f"{folder} is on a file system without locks: do not start a second run there"
        give_warnings([Note(message, RsEmbedWarning)])
    try:
        yield
    finally:
        lock.release()


class _Run:
    def __init__(
        self, config: PretrainConfig, folder: Path, device: torch.device, tiles: Tiles
    ) -> None:
        self.config = config
        self.folder = folder
        self.device = device
        self.tiles = tiles
        tiled = {"tiles": tiles.digest, "tiles_gsd_m": tiles.gsd_digest}
        self.what = config.what_is_learnt() | tiled
        self.state = folder / _STATE
        resumed = self.state.exists()
        self.training = _fresh(config, device, None if resumed else config.initial)
        if resumed:
            read_state(self.state, self.training, self.what)
        self.metrics = Metrics(folder / "metrics.jsonl", self.training)
        inputs = DESCRIPTION.inputs
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] * 255
            for values in (inputs.mean, inputs.std)
        )
        bfloat16 = config.run.precision == "bfloat16" or (
            config.run.precision == "auto" and device.type == "cuda"
        )
        self._lower = (
            (lambda: torch.autocast(device.type, torch.bfloat16)) if bfloat16 else nullcontext
        )
        order = np.repeat(np.arange(len(tiles)), tiles.repeat)
        self._epoch = lru_cache(2)(
            lambda epoch: np.random.default_rng((config.run.seed, _ORDER, epoch)).permutation(order)
        )
        self._drawn = len(order)

    def steps(self, stopped: Callable[[], bool]) -> Iterator[int]:
        """Make the remaining steps; yield the number of each."""
        training, options = self.training, self.config.optimiser
        started = kept = time.monotonic()
        begun = started - training.seconds
        minutes = math.inf if self.config.run.minutes is None else self.config.run.minutes
        batches = ordered(range(training.step, options.steps), self._read, workers=2, ahead=4)
        with closing(batches):
            for pixels, gsd_m in batches:
                losses, norm = self._step(pixels, gsd_m)
                training.step += 1
                training.seconds = time.monotonic() - begun
                over = time.monotonic() - started > 60 * minutes
                last = training.step == options.steps or over or stopped()
                snapshots = self.config.run.snapshot_steps
                snapshot = snapshots is not None and training.step % snapshots == 0
                self.metrics.add(losses, norm)
                if last or snapshot or training.step % self.config.run.log_steps == 0:
                    self.metrics.write(training, self.config, kept=self.state.exists())
                if last or time.monotonic() - kept > 60 * self.config.run.checkpoint_minutes:
                    self.metrics.write(training, self.config, kept=self.state.exists())
                    write_state(self.state, training, self.what)
                    self._release()
                    kept = time.monotonic()
                if last or training.step % self.config.run.picture_steps == 0:
                    self._draw()
                if snapshot:
                    self._release(f"snapshots/step-{training.step:07}")
                yield training.step
                if last:
                    return
        self._release()  # no step was left, but the configuration in the release may differ

    def _read(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the tiles of a step ``B 3 S S`` uint8 and their GSD; the same for any reader."""
        size = self.config.optimiser.batch_size
        places = (divmod(place, self._drawn) for place in range(step * size, (step + 1) * size))
        chosen = np.array([self._epoch(epoch)[index] for epoch, index in places])
        return (
            torch.from_numpy(np.ascontiguousarray(self.tiles.pixels[chosen])),
            torch.from_numpy(self.tiles.gsd_m[chosen]),
        )

    def _step(self, pixels: Tensor, gsd_m: Tensor) -> tuple[Tensor, Tensor]:
        """Update the weights once; returns the losses and the gradient's norm."""
        training, options = self.training, self.config.optimiser
        for group in training.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, training.step)
        training.optimiser.zero_grad(set_to_none=True)
        views = self.views(pixels, gsd_m, training.step)
        sums = torch.zeros(len(Losses._fields), device=self.device)
        for part in self._parts(len(pixels)):
            with self._lower():
                losses: Losses = training.objective(*views.part(part))
            torch.autograd.backward(losses.total / options.accumulate)
            sums += torch.stack([one.detach() for one in losses]) / options.accumulate
        norm = nn.utils.clip_grad_norm_(training.objective.parameters(), options.clip_norm)
        training.optimiser.step()
        if isinstance(training.average, AveragedModel):
            training.average.update_parameters(training.objective.encoder)
        return sums, norm

    def _parts(self, count: int) -> Iterator[Tensor]:
        """Yield the images of each part of a batch; the two views of a tile stay together."""
        views = 2 if self.config.paired else 1
        for part in torch.arange(count).chunk(self.config.optimiser.accumulate):
            yield torch.cat([part + view * count for view in range(views)]).to(self.device)

    def views(self, pixels: Tensor, gsd_m: Tensor, step: int) -> Views:
        """Return the inputs of the objective, drawn from the step's own random numbers."""
        config = self.config
        generator = torch.Generator().manual_seed(
            int(np.random.SeedSequence((config.run.seed, _CROPS, step)).generate_state(1)[0])
        )
        image = (pixels.to(self.device).float() - self._mean) / self._std
        gsd_m = gsd_m.to(self.device)
        if config.paired:
            image, gsd_m = image.repeat(2, 1, 1, 1), gsd_m.repeat(2)
        uniform = torch.rand((4, len(image)), generator=generator)
        light = (
            torch.randn((2, len(image), 1, 1, 1), generator=generator)
            if config.contrast.brightness
            else None
        )
        shares = torch.tensor(config.views.shares, dtype=torch.float32)
        side = config.views.sides[int(shares.multinomial(1, generator=generator))]
        per_side = side // config.network.patch_size
        dense = bool(config.dense.weight)
        crops = Crops.of(uniform, config.views.crop_area, per_side if dense else None)
        image, gsd_m = crops.cut(image), gsd_m * crops.kept.to(self.device)
        if light is not None:
            gain, offset = config.contrast.brightness * light.to(self.device)
            image = image * gain.exp() + offset
        places = crops.places(per_side) if dense else None
        hidden = hidden_patches(side, config.network, config.views)
        visible, masked = random_masks(len(image), per_side**2, hidden, generator, places)
        if config.colour != ColourConfig():
            black, white = ((value - self._mean) / self._std for value in (0, 255))
            image = altered(image, config.colour, black, white, generator)
        if places is not None:
            places = take(places, visible).to(self.device)
        origin = None
        if config.views.origin:
            size = (len(image), 2)
            origin = torch.randint(config.views.origin + 1, size, generator=generator)
            origin = origin.to(self.device)
        visible, masked = visible.to(self.device), masked.to(self.device)
        return Views(image, gsd_m, side, visible, masked, places, origin)

    def _draw(self) -> None:
        count = min(len(self.tiles), 8)
        chosen = np.linspace(0, len(self.tiles) - 1, count).astype(int)
        pixels = torch.from_numpy(self.tiles.pixels[chosen])
        gsd_m = torch.from_numpy(self.tiles.gsd_m[chosen])
        views = self.views(pixels, gsd_m, 0).part(torch.arange(count))
        picture = draw_reconstructions(
            self.training.objective, *views[:5], mean=self._mean, std=self._std
        )
        path = self.folder / "pictures" / f"step-{self.training.step:07}.png"
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as exc:
            raise ExportError(f"cannot make the folder {path.parent}: {exc}") from exc
        with written(path, alone=True) as partial:
            picture.save(partial, format="PNG")

    def _release(self, name: str | None = None) -> None:
        average = self.training.average
        write_checkpoint(
            self.folder / (name or self.config.name),
            average.module if isinstance(average, AveragedModel) else average,
            self.config,
            self.training.step,
            self.tiles,
        )


def _fresh(config: PretrainConfig, device: torch.device, initial: str | None) -> Training:
    """Return the training before its first step."""
    objective = Objective(config)
    if initial is not None:
        _begin_from(initial, objective.encoder)
    objective.to(device)
    options = config.optimiser
    matrices = [p for p in objective.parameters() if p.ndim >= 2]
    others = [p for p in objective.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=options.learning_rate,
        betas=options.betas,
        fused=device.type in ("cpu", "cuda"),
    )
    average: nn.Module = objective.encoder
    if options.ema_decay:
        average = AveragedModel(objective.encoder, multi_avg_fn=_moving_average(options.ema_decay))
    return Training(objective, average, optimiser)


def _begin_from(initial: str, encoder: ScaleMae) -> None:
    """Load weights into an encoder of the same sizes."""
    file = obtain_weights(initial)
    if file.config:
        # The shapes of the weights do not show the number of heads, which changes the network.
        stated = network_config(file.config, str(file.path.parent / "config.json"))
        if stated != encoder.config:
            raise CheckpointError(
                f"got initial={initial!r}, whose config.json says {stated}, expected "
                f"{encoder.config}; state its sizes in [network], or use other weights"
            )
    encoder.load_state_dict(load_network(file.path, encoder.config).state_dict())


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Return the update of `AveragedModel`; early on it forgets faster, as weights move fast."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        done = int(count)
        share = 1 - min(decay, (1 + done) / (10 + done))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, share)

    return update


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function: whether a signal has ended the run. A second SIGINT ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    before: dict[int, Any] = {}

    def handle(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, before[number])

    for each in (signal.SIGINT, signal.SIGTERM):
        before[each] = signal.getsignal(each) or signal.SIG_DFL
        signal.signal(each, handle)
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
