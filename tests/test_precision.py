"""Matrix products in bfloat16 on a CPU: what is refused, what is chosen, and what changes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rs_embed import Embedding, FetchSpec, get_embedding
from rs_embed.errors import SpecError
from rs_embed.models.records import Records
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.precision import check_precision, lower, settled_precision
from rs_embed.registry import find_model
from rs_embed.settings import Settings

FOUND = torch.cpu.get_capabilities()
HAS_UNITS = any(FOUND.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
PIXELS = np.random.default_rng(0).integers(200, 3000, (3, 64, 64), dtype=np.uint16)


def _embedded(precision: str) -> Embedding:
    return get_embedding(
        "scalemae",
        input_chw=PIXELS,
        fetch=FetchSpec(scale_m=10),
        weights="scalemae-tiny",
        image_size=64,
        input_prep="tile",
        device="cpu",
        precision=precision,
    )


def test_only_products_of_linear_layers_change() -> None:
    options = {"weights": "scalemae-tiny"}
    plan = find_model("scalemae").plan(options, device="cpu", settings=Settings.from_environ())
    encoder = plan.load()
    assert isinstance(encoder, NativeEncoder)
    lowered = lower(copy.deepcopy(encoder.network))
    kept = {name for name, value in lowered.named_parameters() if value.dtype == torch.float32}
    rounded = {name for name, value in lowered.named_parameters() if value.dtype == torch.bfloat16}
    blocks = encoder.network.config.depth
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert rounded == {f"blocks.{n}.{layer}.weight" for n in range(blocks) for layer in layers}
    assert kept == {name for name, _ in encoder.network.named_parameters()} - rounded

    linear, ours = (
        dict(net.named_modules())["blocks.0.mlp.fc1"] for net in (encoder.network, lowered)
    )
    assert isinstance(linear, nn.Linear)
    x = torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # Rounded to 8 bits of mantissa: factors once, the product once.
        product = (x.bfloat16().double() @ linear.weight.bfloat16().double().T).float()
        expected = product.bfloat16().float() + linear.bias
        torch.testing.assert_close(ours(x), expected, rtol=2**-7, atol=1e-4)

        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        gsds = torch.tensor([2.0, 5.0, 10.0, 20.0])
        reference, tokens = (net(images, gsds, normed=True) for net in (encoder.network, lowered))
    for exact, rough in zip(reference, tokens, strict=True):
        assert exact is not None
        assert F.cosine_similarity(exact, rough, dim=-1).min() >= 0.9999
        assert not torch.equal(exact, rough)


@pytest.mark.skipif(HAS_UNITS, reason="the processor has units for bfloat16")
def test_a_processor_without_units_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match="without units for it .avx512_bf16, amx_bf16, .*'auto'"):
        _embedded("bfloat16")


@pytest.mark.skipif(not HAS_UNITS, reason="the processor has no units for bfloat16")
def test_bfloat16_is_recorded_and_close_to_float32() -> None:
    exact, rough = _embedded("float32"), _embedded("bfloat16")
    assert rough.meta["precision"] == "bfloat16"
    assert rough.meta["fingerprint"] != exact.meta["fingerprint"]
    cosine = exact.data @ rough.data / np.linalg.norm(exact.data) / np.linalg.norm(rough.data)
    assert cosine >= 0.9999


@pytest.mark.skipif(HAS_UNITS, reason="the processor has units for bfloat16")
def test_auto_is_float32_where_bfloat16_cannot_pay_and_says_so() -> None:
    chosen = _embedded("auto")
    assert chosen.meta["precision"] == "float32"
    assert chosen.meta["precision_source"] == "auto: no units for bfloat16 (cpu)"
    exact = _embedded("float32")
    assert np.array_equal(chosen.data, exact.data)
    assert chosen.meta["fingerprint"] == exact.meta["fingerprint"]
    assert "precision_source" not in exact.meta


@pytest.mark.skipif(not HAS_UNITS, reason="the processor has no units for bfloat16")
def test_auto_follows_the_recorded_measurement(tmp_path: Path) -> None:
    path, config = tmp_path / "precision.json", NetworkConfig(embed_dim=192)
    first = settled_precision("cpu", config, Records(path))
    (key,) = json.loads(path.read_text())
    assert first[0] in ("float32", "bfloat16")
    for ratio, precision in ((3.5, "bfloat16"), (1.1, "float32")):
        path.write_text(json.dumps({key: ratio}))
        chosen, reason = settled_precision("cpu", config, Records(path))
        assert (chosen, f"{ratio} x" in reason) == (precision, True)


@pytest.mark.parametrize(
    ("precision", "kind", "refused"),
    [
        ("float32", "mps", ""),
        ("auto", "mps", ""),
        ("bfloat16", "cuda", ""),
        ("bfloat16", "mps", "got precision='bfloat16' on mps, expected CUDA or a CPU"),
    ],
)
def test_precision_depends_on_the_device(precision: str, kind: str, refused: str) -> None:
    if refused:
        with pytest.raises(SpecError, match=refused):
            check_precision(precision, kind)
    else:
        check_precision(precision, kind)


@pytest.mark.parametrize("damage", [b"", b"[1, 2]", b'{"a": 1', b"\xff\xfe", b"[" * 100_000])
def test_damaged_records_are_replaced(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "records" / "values.json"
    records = Records(path)
    assert records.get("a") is None
    records.put("a", 1.5)
    records.put("b", "text")
    assert (Records(path).get("a"), Records(path).get("b")) == (1.5, "text")
    path.write_bytes(damage)
    assert records.get("a") is None
    records.put("c", 3)
    assert json.loads(path.read_text()) == {"c": 3}
    assert [file.name for file in path.parent.iterdir()] == ["values.json"]
