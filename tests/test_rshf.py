"""``loader="rshf"``: a package on disk shaped like the real one, and every way it can fail."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rs_embed import FetchSpec, OutputSpec, get_embedding
from rs_embed.embedding.result import Embedding
from rs_embed.errors import MissingDependencyError, ModelError, SpecError

# The real wrapper: an outer module whose ``forward`` overwrites input_res with 10, around a ViT
# whose ``forward_features`` honours it and skips the final norm.
WRAPPER = """
    import torch
    from torch import nn
    from pathlib import Path
    from safetensors.torch import load_file
    from rs_embed.models.scalemae.network import NetworkConfig, ScaleMae as Network

    class Backbone(nn.Module):
        cls_token_flag = True
        num_prefix_tokens = 1

        def __init__(self, folder):
            super().__init__()
            self.inner = Network(NetworkConfig(48, 2, 3, 16, 2.0))
            self.inner.load_state_dict(load_file(Path(folder) / "model.safetensors"))
            self.patch_embed = self.inner.patch_embed
            self.patch_embed.patch_size = (16, 16)
            self.seen = []

        def forward_features(self, x, input_res=None):
            assert input_res.shape == (len(x),)
            self.seen.append(input_res.tolist())
            cls, patches = self.inner(x, input_res.cpu(), normed=False)
            return torch.cat([cls[:, None], patches.flatten(1, 2)], 1)

    class ScaleMAE(nn.Module):
        last = None

        def __init__(self, folder):
            super().__init__()
            self.model = Backbone(folder)

        def forward(self, x, patch_size, input_res=10.0):
            return self.model.forward_features(x, input_res=torch.tensor([10.0]))

        @classmethod
        def from_pretrained(cls, folder):
            cls.last = cls(folder)
            return cls.last
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that puts an ``rshf`` with more code at its end on the path."""

    def write(changes: str = "") -> None:
        package = tmp_path / "site" / "rshf"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        code = textwrap.dedent(WRAPPER) + textwrap.dedent(changes)
        (package / "scalemae.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    yield write
    for name in ("rshf", "rshf.scalemae"):
        sys.modules.pop(name, None)


@pytest.fixture
def embed(checkpoint: Path, tmp_path: Path) -> Callable[..., Embedding]:
    """Return a function that embeds with the wrapper on a copy of the checkpoint of its own."""
    import shutil

    folder = shutil.copytree(checkpoint, tmp_path / "weights")
    pixels = np.random.default_rng(2).integers(200, 4000, (3, 64, 64)).astype(np.uint16)

    def run(output: OutputSpec | None = None, **options: object) -> Embedding:
        return get_embedding(
            "scalemae",
            input_chw=pixels,
            fetch=FetchSpec(scale_m=7.5),
            image_size=64 * 4,
            output=output,
            **{"weights": str(folder), "loader": "rshf", **options},  # type: ignore[arg-type]
        )

    return run


@pytest.mark.parametrize("output", [OutputSpec.pooled(p) for p in ("mean", "max", "cls")])
def test_equals_the_native_network_before_the_norm(
    install: Callable[..., None], embed: Callable[..., Embedding], output: OutputSpec
) -> None:
    install()
    wrapped = embed(output)
    ours = embed(output, loader="native", tokens="pre_norm")
    assert np.abs(wrapped.data - ours.data).max() < 1e-5
    assert wrapped.meta["tokens"] == "pre_norm"
    assert wrapped.meta["tokens_kind"] == "patch_tokens_pre_norm"
    assert wrapped.meta["loader"] == "rshf"
    # The GSD of the request reached the network, not the wrapper's 10.
    assert wrapped.meta["input_res"] == 7.5 * 64 / 256
    assert sys.modules["rshf.scalemae"].ScaleMAE.last.model.seen == [[1.875]]
    assert np.abs(wrapped.data - embed(output, gsd=10.0).data).max() > 1e-3


def test_grid_equals_the_native_grid(
    install: Callable[..., None], embed: Callable[..., Embedding]
) -> None:
    install()
    wrapped = embed(OutputSpec.grid()).data
    ours = embed(OutputSpec.grid(), loader="native", tokens="pre_norm").data
    assert wrapped.dims == ("d", "y", "x")
    assert np.abs(wrapped.values - ours.values).max() < 1e-5


def test_a_vector_is_passed_through_and_has_no_grid(
    install: Callable[..., None], embed: Callable[..., Embedding]
) -> None:
    install("Backbone.forward_features = lambda self, x, input_res: torch.arange(6.)[None]")
    embedding = embed()
    assert embedding.data.tolist() == [0, 1, 2, 3, 4, 5]
    assert embedding.meta["pooling"] == embedding.meta["tokens_kind"] == "model_pooled"
    with pytest.raises(
        ModelError, match="model_pooled output without patch tokens, which a grid needs"
    ):
        embed(OutputSpec.grid())
    with pytest.raises(ModelError, match="got no class token"):
        embed(OutputSpec.pooled("cls"))


def test_a_feature_map_becomes_a_grid_north_up(
    install: Callable[..., None], embed: Callable[..., Embedding]
) -> None:
    install(
        "Backbone.forward_features = lambda self, x, input_res: "
        "torch.arange(256.).reshape(1, 1, 16, 16).repeat(1, 5, 1, 1)"
    )
    grid = embed(OutputSpec.grid())
    assert grid.data.shape == (5, 16, 16)
    assert grid.data.values[3, 2, 1] == 33
    assert grid.meta["tokens_kind"] == "feature_map"


def test_forward_features_on_the_wrapper_itself_and_patch_size_argument(
    install: Callable[..., None], embed: Callable[..., Embedding]
) -> None:
    install("""
        class ScaleMAE(Backbone):
            @classmethod
            def from_pretrained(cls, folder):
                return cls(folder)

            def forward_features(self, x, patch_size, input_res=None):
                assert patch_size == 16
                return Backbone.forward_features(self, x, input_res)
    """)
    assert np.isfinite(embed().data).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ("del Backbone.forward_features", "the rshf model ScaleMAE has no forward_features"),
        ("""
         def failing(self, x, input_res):
             assert x.shape[-1] == 224, "Input height doesn't match"
         Backbone.forward_features = failing
         """, "forward_features of the rshf model failed.*Input height"),
        ("Backbone.forward_features = lambda self, x: x", "expected input_res among them"),
        ("Backbone.forward_features = lambda self, x, input_res: (x,)", "returned tuple, expected"),
        ("Backbone.forward_features = lambda self, x, input_res: x[0, 0, 0]",
         r"returned \(256,\), expected"),
        ("Backbone.forward_features = lambda self, x, input_res: torch.ones(2, 257, 4)",
         "returned 2 results for 1 images"),
        ("Backbone.forward_features = lambda self, x, input_res: torch.ones(1, 256, 4)",
         r"returned 256 tokens, expected 257 \(1 class token, 16 x 16 patches of 16 px\)"),
        ("Backbone.forward_features = lambda self, x, input_res: torch.ones(1, 4, 3, 3)",
         "got 3 x 3 patch tokens, expected 16 x 16"),
        ("Backbone.forward_features = lambda self, x, input_res: x.new_full((1, 4), torch.nan)",
         "4 values that are not finite"),
        ("del ScaleMAE", "has no class ScaleMAE"),
        ("raise RuntimeError('operator torchvision::nms does not exist')",
         "cannot be imported .operator torchvision::nms.*torchvision built for"),
        ("""
         def broken(folder):
             raise AttributeError("'PreTrainedConfig' object has no attribute 'feat_dim'")
         ScaleMAE.from_pretrained = broken
         """, "cannot load .*feat_dim.*transformers<5.4"),
        ("""
         class Embed(nn.Module):
             patch_size = None
         Backbone.__init__ = lambda self, f: (nn.Module.__init__(self),
                                              setattr(self, "patch_embed", Embed()))[0]
         """, "has no patch size"),
    ],
)  # fmt: skip
def test_failures_are_clear(
    install: Callable[..., None], embed: Callable[..., Embedding], changes: str, match: str
) -> None:
    install(changes)
    output = OutputSpec.grid() if "3 x 3" in match else None
    with pytest.raises(ModelError, match=match):
        embed(output)


@pytest.mark.skipif(find_spec("rshf") is not None, reason="rshf is installed here")
def test_not_installed_names_the_extra(embed: Callable[..., Embedding]) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install '.\[rshf\]'"):
        embed()


def test_hub_weights_are_loaded_by_id_and_commit(
    install: Callable[..., None], checkpoint: Path
) -> None:
    """rshf cannot read a snapshot folder with only ``pytorch_model.bin``; it needs the id."""
    import os
    import shutil

    install(f"""
        def from_pretrained(repository, revision=None):
            ScaleMAE.asked = (repository, revision)
            return ScaleMAE({str(checkpoint)!r})
        ScaleMAE.from_pretrained = from_pretrained
    """)
    home = Path(os.environ["HF_HOME"]) / "hub" / "models--me--wrapped"
    snapshot = home / "snapshots" / ("d" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("d" * 40)
    (snapshot / "pytorch_model.bin").write_bytes(b"PK")
    embedding = get_embedding(
        "scalemae", input_chw=np.full((3, 40, 40), 900), fetch=FetchSpec(scale_m=1),
        image_size=256, loader="rshf", weights="me/wrapped",
    )  # fmt: skip
    assert sys.modules["rshf.scalemae"].ScaleMAE.asked == ("me/wrapped", "d" * 40)
    assert embedding.meta["weights_revision"] == "d" * 40
    shutil.rmtree(home)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tokens": "normed"}, "tokens='normed' with loader='rshf'"),
        ({"weights": "random-init"}, "loader='rshf' with random weights"),
        ({"precision": "bfloat16"}, "precision='bfloat16' with loader='rshf'"),
    ],
)
def test_incompatible_options(
    embed: Callable[..., Embedding], options: dict[str, str], match: str, checkpoint: Path
) -> None:
    with pytest.raises(SpecError, match=match):
        embed(**options)
    with pytest.raises(SpecError, match="expected a hub id or a folder"):
        get_embedding(
            "scalemae", input_chw=np.full((3, 40, 40), 900), fetch=FetchSpec(scale_m=1),
            loader="rshf", weights=str(checkpoint / "model.safetensors"),
        )  # fmt: skip
