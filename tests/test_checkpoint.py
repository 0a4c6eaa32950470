"""Every published checkpoint format loads to the same numbers; everything else is refused."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rs_embed import FetchSpec, get_embedding
from rs_embed.errors import CheckpointError, SpecError
from rs_embed.models.scalemae.checkpoint import load_network
from rs_embed.models.scalemae.config import NetworkConfig, network_config, stated_image_size
from rs_embed.models.weights import FileDigest, WeightsFile, weights_on_disk
from tests.conftest import SMALL, small_network

State = dict[str, Tensor]


def decoder() -> State:
    """Content of the official release other than the encoder."""
    names = (
        "pos_embed", "decoder_pos_embed", "mask_token", "mask_token_decoder",
        "decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight", "decoder_norm.bias",
        "fpn.do1.0.weight", "fcn_high.conv.weight", "fcn_low.conv.weight", "head.weight",
    )  # fmt: skip
    return {name: torch.ones(2, 3) for name in names}


def as_hub_wrapper(path: Path, state: State) -> None:
    torch.save({f"model.{k}": v for k, v in state.items()}, path)


def as_official(path: Path, state: State) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}
    args = argparse.Namespace(batch_size=512, model="mae_vit_large_patch16", blr=1.5e-4)
    content = {"model": state | decoder(), "optimizer": optimiser, "epoch": 799, "args": args}
    torch.save(content, path)


def as_torchgeo(path: Path, state: State) -> None:
    torch.save(state | {"pos_embed": torch.ones(1, 197, 48)}, path)


def as_legacy(path: Path, state: State) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def as_safetensors(path: Path, state: State) -> None:
    save_file(state, path)


def as_prefixed_safetensors(path: Path, state: State) -> None:
    save_file({f"model.{k}": v for k, v in state.items()}, path)


def as_half(path: Path, state: State) -> None:
    save_file({k: v.half() for k, v in state.items()}, path)


def as_global_pool(path: Path, state: State) -> None:
    torch.save({k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v
                for k, v in state.items()}, path)  # fmt: skip


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_hub_wrapper, "pytorch_model.bin"),
        (as_official, "scalemae-vitlarge-800.pth"),
        (as_torchgeo, "vit_large_patch16_224_fmow_rgb_scalemae.pth"),
        (as_legacy, "old.pt"),
        (as_safetensors, "model.safetensors"),
        (as_prefixed_safetensors, "model.safetensors"),
        (as_half, "model.safetensors"),
        (as_global_pool, "finetuned.pth"),
    ],
)
def test_formats_load_to_the_same_network(
    write: Callable[[Path, State], None], name: str, tmp_path: Path
) -> None:
    original = small_network()
    write(tmp_path / name, original.state_dict())
    loaded = load_network(tmp_path / name, SMALL)
    tolerance = 1e-3 if write is as_half else 0
    for (key, expected), got in zip(
        original.state_dict().items(), loaded.state_dict().values(), strict=True
    ):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= tolerance, key
    assert not loaded.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())


def test_loading_maps_the_file_instead_of_copying_it(tmp_path: Path) -> None:
    # A change of the file appears in the loaded weights: they are its memory-mapped pages.
    path = tmp_path / "model.safetensors"
    save_file(small_network().state_dict(), path)
    network = load_network(path, SMALL)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    place = json.loads(path.read_bytes()[8 : 8 + length])["norm.bias"]["data_offsets"][0]
    with path.open("r+b") as file:
        file.seek(8 + length + place)
        file.write(struct.pack("<f", 123.5))
    assert network.norm.bias[0] == 123.5


class Payload:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return (Path("/nonexistent-rs-embed").touch, ())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty, expected weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"PK\x03\x04 cut", "truncated or not a PyTorch file"),
        (struct.pack("<Q", 500) + b'{"cls_token"', "is not a complete safetensors file"),
        (pickle.dumps({"model": Payload()}), "not opened: plain pickles can run any code"),
        (pickle.dumps([1, 2]), "neither safetensors nor a file of torch.save"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "neither safetensors nor a file of torch.save"),
    ],
)
def test_files_that_are_not_weights(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match):
        load_network(path, SMALL)


def test_pickled_objects_in_a_torch_file_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": small_network().state_dict(), "hook": Payload()}, path)
    with pytest.raises(CheckpointError, match="plain tensors.*not unpickled.*convert it"):
        load_network(path, SMALL)


@pytest.mark.parametrize("write", [as_safetensors, as_hub_wrapper, as_legacy])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_files(
    write: Callable[[Path, State], None], share: float, tmp_path: Path
) -> None:
    path = tmp_path / "weights.bin"
    write(path, small_network().state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"weights\.bin"):
        load_network(path, SMALL)


def test_wrong_keys_and_shapes_are_listed(tmp_path: Path) -> None:
    state = dict(small_network().state_dict())
    del state["norm.weight"], state["blocks.1.mlp.fc2.bias"]
    state["cls_token"] = torch.zeros(1, 1, 64)
    state["classifier.weight"] = torch.zeros(3)
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        load_network(path, SMALL)
    message = str(caught.value)
    assert "2 missing: blocks.1.mlp.fc2.bias, norm.weight" in message
    assert "1 unexpected: classifier.weight" in message
    assert "1 with a different shape: cls_token (1, 1, 64), expected (1, 1, 48)" in message


def test_foreign_weights_are_refused_with_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({f"layer{i}.conv.weight": torch.zeros(1) for i in range(30)}, path)
    with pytest.raises(CheckpointError, match=r"30 unexpected: layer0.*and 18 more"):
        load_network(path, SMALL)
    torch.save({"model": {"a": 1}}, path)
    with pytest.raises(
        CheckpointError, match="not contain a state dict of ScaleMAE .not tensors: a"
    ):
        load_network(path, SMALL)


def test_tensors_that_are_not_weights(tmp_path: Path) -> None:
    state = small_network().state_dict()
    path = tmp_path / "odd.pth"
    for key, value in (
        ("norm.bias", torch.ones(48, dtype=torch.int64)),
        ("norm.bias", torch.ones(48, dtype=torch.complex64)),
        ("norm.bias", torch.ones(48).to_sparse()),
    ):
        torch.save({**state, key: value}, path)
        with pytest.raises(CheckpointError, match=r"not dense floating-point: norm\.bias"):
            load_network(path, SMALL)
    numbered: dict[Any, Tensor] = {**state, 7: torch.ones(1)}
    torch.save(numbered, path)
    with pytest.raises(CheckpointError, match="keys that are not strings"):
        load_network(path, SMALL)


def test_a_bad_image_size_names_the_config_file(tmp_path: Path) -> None:
    save_file(small_network().state_dict(), tmp_path / "model.safetensors")
    config = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "img_size": 225}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match=r"got .*config\.json: img_size=225, expected a multiple"):
        get_embedding(
            "scalemae", input_chw=np.full((3, 40, 40), 900), fetch=FetchSpec(scale_m=1),
            weights=tmp_path,
        )  # fmt: skip


def test_sizes_default_to_vit_large() -> None:
    assert network_config({}, "x") == NetworkConfig()
    assert (NetworkConfig().embed_dim, NetworkConfig().depth) == (1024, 24)
    assert network_config({"embed_dim": 192}, "x").num_heads == 3


def test_the_wrappers_own_names_are_understood() -> None:
    stated = {"feat_dim": 768, "fc_dim": 1024, "global_pool": False, "cls_token_flag": False}
    config = network_config(stated, "x")
    assert (config.embed_dim, config.num_heads, config.cls_token) == (768, 12, False)
    assert stated_image_size({"img_size": 64}, "x") == 64
    assert stated_image_size({}, "x") is None


@pytest.mark.parametrize(
    ("stated", "match"),
    [
        ({"embed_dim": "192"}, "config.json: got embed_dim='192'"),
        ({"depth": 0}, "got depth=0"),
        ({"depth": 10**9}, "got depth=1000000000, expected a whole number from 1 to 512"),
        ({"embed_dim": 2**40}, "got embed_dim="),
        ({"mlp_ratio": float("inf")}, "got mlp_ratio=inf"),
        ({"mlp_ratio": float("nan")}, "got mlp_ratio=nan"),
        ({"mlp_ratio": -1}, "got mlp_ratio=-1"),
        ({"cls_token": 1}, "got cls_token=1"),
        ({"embed_dim": 100, "num_heads": 3}, "multiple of 4 and of num_heads"),
    ],
)
def test_unusable_sizes(stated: dict[str, Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        network_config(stated, "config.json")


def test_paths_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder or file"):
        weights_on_disk(str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="found none"):
        weights_on_disk(str(tmp_path))
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"found a\.pth, b\.pth; pass the path of the file"):
        weights_on_disk(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        weights_on_disk(str(tmp_path / "a.pth"))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="has a list"):
        weights_on_disk(str(tmp_path / "a.pth"))


def test_folder_prefers_safetensors_and_reads_its_config(checkpoint: Path) -> None:
    found = weights_on_disk(str(checkpoint))
    assert found is not None
    assert found.path.name == "model.safetensors"
    assert found.config["embed_dim"] == 48
    assert found.revision is None


def test_digest_is_stored_until_the_file_changes(tmp_path: Path) -> None:
    import os

    path, record = tmp_path / "weights.bin", tmp_path / "cache" / "sha256.json"
    path.write_bytes(b"one")
    assert FileDigest(path, record).hexdigest() == hashlib.sha256(b"one").hexdigest()
    stamp = path.stat()
    # Same size, same times: the record is trusted.
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert FileDigest(path, record).hexdigest() == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert FileDigest(path, record).hexdigest() == hashlib.sha256(b"three").hexdigest()
    # A record that is damaged or not writable is ignored.
    record.write_text("[")
    assert FileDigest(path, record).hexdigest() == hashlib.sha256(b"three").hexdigest()
    assert FileDigest(path, path / "below_a_file").hexdigest()


def test_digest_of_a_hub_file_is_its_name(tmp_path: Path) -> None:
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(np.random.default_rng(0).bytes(10))
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    record = tmp_path / "record"
    in_hub = WeightsFile("me/mine", link, revision="c" * 40)
    assert in_hub.announced_sha256 == "ab" * 32
    assert FileDigest(link, record, in_hub.announced_sha256).hexdigest() == "ab" * 32
    # A local file of that name proves nothing.
    assert WeightsFile(str(blob), blob).announced_sha256 is None
    assert FileDigest(blob, record).hexdigest() == hashlib.sha256(blob.read_bytes()).hexdigest()
