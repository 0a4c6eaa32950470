"""The network against values derived without it: formulae in float64 NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rs_embed.models.scalemae.config import VARIANTS, NetworkConfig
from rs_embed.models.scalemae.network import Block, ScaleMae, gsd_positions
from tests.conftest import SMALL, small_network

Array = NDArray[np.float64]


def positions(rows: int, columns: int, dim: int, gsd: float) -> Array:
    """The formula, written out one number at a time."""
    table = np.zeros((rows * columns, dim))
    quarter = dim // 4
    for row in range(rows):
        for column in range(columns):
            for half, index in enumerate((column, row)):  # x first, then y
                for i in range(quarter):
                    angle = gsd * index / 10000 ** (i / quarter)
                    base = half * dim // 2
                    table[row * columns + column, base + i] = math.sin(angle)
                    table[row * columns + column, base + quarter + i] = math.cos(angle)
    return table


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * weight + bias)


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def transformer(state: dict[str, Array], config: NetworkConfig, image: Array, gsd: float) -> Array:
    """The encoder for one image ``(3, H, W)``: tokens before the final norm, class token first."""
    p, heads = config.patch_size, config.num_heads
    rows, columns = image.shape[1] // p, image.shape[2] // p
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = [
        np.tensordot(kernel, image[:, r * p : r * p + p, c * p : c * p + p], axes=3) + bias
        for r in range(rows)
        for c in range(columns)
    ]
    x = np.stack(patches) + positions(rows, columns, config.embed_dim, gsd)
    x = np.concatenate([state["cls_token"][0], x])
    for i in range(config.depth):
        block = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
        y = layer_norm(x, block["norm1.weight"], block["norm1.bias"])
        qkv = y @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
        mixed = []
        for q, k, v in zip(
            *(np.split(part, heads, 1) for part in np.split(qkv, 3, 1)), strict=True
        ):
            scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            mixed.append(scores / scores.sum(1, keepdims=True) @ v)
        x = x + np.concatenate(mixed, 1) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        y = layer_norm(x, block["norm2.weight"], block["norm2.bias"])
        y = gelu(y @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"])
        x = x + y @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return x


def states(network: ScaleMae) -> dict[str, Array]:
    return {k: v.numpy().astype(np.float64) for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("rows", "columns", "dim", "gsd"),
    [(14, 14, 1024, 16.015625), (14, 14, 1024, 1.0), (3, 7, 48, 0.5), (1, 1, 8, 10.0)],
)
def test_positions_follow_the_formula(rows: int, columns: int, dim: int, gsd: float) -> None:
    got = gsd_positions(rows, columns, dim, torch.tensor([gsd]))[0].numpy()
    assert np.abs(got - positions(rows, columns, dim, gsd)).max() < 1e-4


@pytest.mark.parametrize("size", [(32, 32), (16, 80), (64, 48)])
@pytest.mark.parametrize("gsd", [0.6, 3.5, 16.0])
def test_forward_equals_numpy_on_any_patch_grid(size: tuple[int, int], gsd: float) -> None:
    network = small_network()
    image = np.random.default_rng(0).normal(size=(3, *size))
    state = states(network)
    pre_norm = transformer(state, SMALL, image, gsd)
    normed = layer_norm(pre_norm, state["norm.weight"], state["norm.bias"])
    for expected, flag in ((normed, True), (pre_norm, False)):
        with torch.inference_mode():
            batch = torch.from_numpy(image[None].astype(np.float32))
            cls, patches = network(batch, torch.tensor([gsd]), normed=flag)
        assert patches.shape == (1, size[0] // 16, size[1] // 16, 48)
        assert np.abs(cls[0].numpy() - expected[0]).max() < 1e-4
        assert np.abs(patches[0].flatten(0, 1).numpy() - expected[1:]).max() < 1e-4


def test_a_batch_of_mixed_gsds_equals_one_by_one() -> None:
    network = small_network()
    images = torch.randn(4, 3, 48, 32, generator=torch.Generator().manual_seed(5))
    gsds = torch.tensor([0.5, 3.5, 10.0, 16.0])
    with torch.inference_mode():
        together = network(images, gsds)
        for i in range(4):
            alone = network(images[i : i + 1], gsds[i : i + 1])
            assert (together.cls[i] - alone.cls[0]).abs().max() < 1e-5
            assert (together.patches[i] - alone.patches[0]).abs().max() < 1e-5
    # The GSD matters: the same image at another one is another embedding.
    with torch.inference_mode():
        other = network(images[:1], torch.tensor([5.0]))
    assert (other.patches[0] - together.patches[0]).abs().max() > 0.1


def test_without_class_token() -> None:
    config = NetworkConfig(embed_dim=48, depth=1, num_heads=3, cls_token=False)
    network = small_network(config)
    with torch.inference_mode():
        cls, patches = network(torch.randn(2, 3, 32, 48), torch.tensor([1.0, 2.0]))
    assert cls is None
    assert patches.shape == (2, 2, 3, 48)
    assert "cls_token" not in network.state_dict()


def test_bfloat16_keeps_norms_and_positions_in_float32() -> None:
    network = small_network()
    seen: list[torch.dtype] = []
    for block in network.blocks:
        assert isinstance(block, Block)
        block.norm1.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    image, gsd = torch.randn(1, 3, 64, 64), torch.tensor([16.0])
    with torch.inference_mode():
        full = network(image, gsd).patches.flatten()
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            low = network(image, gsd).patches.flatten()
    assert set(seen) == {torch.float32}
    assert low.dtype == torch.float32
    assert torch.cosine_similarity(full, low, dim=0) > 0.999


def test_published_sizes_have_the_published_parameter_count() -> None:
    # ViT-L/16 encoder without head and position table: 303,103,... from the sizes.
    d, depth, hidden = 1024, 24, 4096
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * hidden + hidden) + (hidden * d + d)
    expected = (3 * 16 * 16 * d + d) + d + depth * block + 2 * d
    with torch.device("meta"):
        network = ScaleMae(VARIANTS["large"])
    assert sum(p.numel() for p in network.parameters()) == expected


def test_random_weights_are_reproducible() -> None:
    first, second = ScaleMae(SMALL), ScaleMae(SMALL)
    first.initialise(0)
    second.initialise(0)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    second.initialise(1)
    assert not torch.equal(first.cls_token, second.cls_token)
    assert first.state_dict()["blocks.0.mlp.fc1.bias"].abs().max() == 0
    assert (first.norm.weight == 1).all()
