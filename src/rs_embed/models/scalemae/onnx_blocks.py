"""The transformer blocks of the native network, run by ONNX Runtime instead of PyTorch.

Patches, positions, class token and final norm stay with the network; the blocks take nearly all of
its time. The graph is made in memory, where the weights stay as they were loaded: this takes less
than starting ONNX Runtime on them, so that no file of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, nn

from rs_embed._optional import require
from rs_embed.errors import ModelError
from rs_embed.models.base import Encoder
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.network import Block, ScaleMae

# Of the operators, and of the format of the graph: ONNX 1.16 and ONNX Runtime 1.19 know them.
_OPSET = 20
_IR_VERSION = 10
_CONTRIB = "com.microsoft"


def require_onnx() -> tuple[Any, Any]:
    """Return the packages onnx and onnxruntime; raise `MissingDependencyError` without them."""
    names = ("onnx", "onnxruntime")
    onnx, runtime = (require(name, extra="onnx", purpose="runtime='onnx'") for name in names)
    return onnx, runtime


def on_onnx(encoder: Encoder) -> NativeEncoder:
    """Return a native encoder on the CPU, in float32, whose blocks ONNX Runtime computes."""
    native = cast(NativeEncoder, encoder)
    return replace(native, network=with_onnx_blocks(native.network))


@lru_cache(maxsize=2)
def with_onnx_blocks(network: ScaleMae) -> ScaleMae:
    """Return a network with the same weights, whose blocks ONNX Runtime computes."""
    with torch.device("meta"):
        twin = ScaleMae(network.config)
    twin.blocks = nn.ModuleList([OnnxBlocks(network)])
    state = network.state_dict()
    rest = {key: value for key, value in state.items() if not key.startswith("blocks.")}
    twin.load_state_dict(rest, assign=True)
    return twin.eval().requires_grad_(False)


class OnnxBlocks(nn.Module):
    """All blocks of a network, as one.

    It computes with as many threads as PyTorch has in the thread that calls it.

    Parameters
    ----------
    network : ScaleMae
        The network; its weights are used where they are.
    """

    def __init__(self, network: ScaleMae) -> None:
        super().__init__()
        self._graph = _Graph(network)  # holds the weights
        self._sessions: dict[tuple[int, int], Any] = {}
        self._starting = Lock()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B N D`` for ``B N D``; raise `ModelError` if, for example, memory is short."""
        session = self.session()
        with _errors(f"compute tokens of shape {tuple(x.shape)}"):
            (encoded,) = session.run(None, {"tokens": x.contiguous().numpy()})
        return torch.from_numpy(encoded)

    def session(self) -> Any:
        """Return the session for the threads of the caller, which several callers may use."""
        # A forked process has none of the threads of a session.
        key = torch.get_num_threads(), os.getpid()
        with self._starting, _errors("start"):
            if key not in self._sessions:
                self._sessions[key] = self._graph.session(key[0])
            return self._sessions[key]


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise those of ONNX Runtime, which have no base of their own, as `ModelError`."""
    state = vars(require_onnx()[1].capi.onnxruntime_pybind11_state).values()
    own = tuple(kind for kind in state if isinstance(kind, type) and issubclass(kind, Exception))
    try:
        yield
    except own as exc:
        raise ModelError(
            f"ONNX Runtime cannot {what} ({' '.join(str(exc).split())}); use runtime='torch', or, "
            "if memory is short, a smaller batch_size"
        ) from exc


class _Graph:
    """The graph of the blocks. Tokens are rows, ``B*N D``, but for attention.

    Linear layers are ``Gemm`` with ``transB``, which takes the weights in the layout of PyTorch.
    """

    def __init__(self, network: ScaleMae) -> None:
        self._onnx, self._runtime = require_onnx()
        self._config = network.config
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}
        self._add("Shape", ["tokens"], "shape")
        x = self._add("Reshape", ["tokens", "as_rows"])
        for block in network.blocks:
            x = self._block(x, cast(Block, block))
        self._add("Reshape", [x, "shape"], "encoded")

    def session(self, threads: int) -> Any:
        """Return an ``InferenceSession`` from ``tokens`` to ``encoded``."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        width = self._config.embed_dim
        ends = [
            helper.make_tensor_value_info(name, kinds.FLOAT, ["B", "N", width])
            for name in ("tokens", "encoded")
        ]
        as_rows = helper.make_tensor("as_rows", kinds.INT64, [2], [-1, width])
        place = [{"key": "location", "value": "memory"}]
        weights = [
            kinds(
                name=name,
                data_type=kinds.FLOAT,
                dims=values.shape,
                data_location=kinds.EXTERNAL,
                external_data=place,
            )
            for name, values in self._weights.items()
        ]
        graph = helper.make_graph(self._nodes, "blocks", ends[:1], ends[1:], [as_rows, *weights])
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait do not take the cores from others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        in_memory = map(self._runtime.OrtValue.ortvalue_from_numpy, self._weights.values())
        options.add_external_initializers(list(self._weights), list(in_memory))
        return self._runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _block(self, x: str, block: Block) -> str:
        """Append the nodes of `rs_embed.models.scalemae.network.Block`."""
        qkv = self._layer("Gemm", self._norm(x, block.norm1), block.attn.qkv, transB=1)
        parts = [f"{qkv}.{part}" for part in "qkv"]
        self._add("Split", [qkv], *parts, axis=1, num_outputs=3)
        heads = [self._add("Reshape", [part, "shape"]) for part in parts]  # B N D
        mixed = self._add(
            "MultiHeadAttention", heads, domain=_CONTRIB, num_heads=self._config.num_heads
        )
        rows = self._add("Reshape", [mixed, "as_rows"])
        x = self._add("Add", [x, self._layer("Gemm", rows, block.attn.proj, transB=1)])
        hidden = self._layer("Gemm", self._norm(x, block.norm2), block.mlp.fc1, transB=1)
        hidden = self._add("Gelu", [hidden])
        return self._add("Add", [x, self._layer("Gemm", hidden, block.mlp.fc2, transB=1)])

    def _norm(self, x: str, norm: nn.LayerNorm) -> str:
        return self._layer("LayerNormalization", x, norm, epsilon=norm.eps)

    def _layer(self, operator: str, x: str, layer: nn.Module, **attributes: Any) -> str:
        names = []
        for parameter in layer.parameters():  # weight, bias
            names.append(f"w{len(self._weights)}")
            self._weights[names[-1]] = parameter.detach().contiguous().numpy()
        return self._add(operator, [x, *names], **attributes)

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        outputs = outputs or (f"{operator}{len(self._nodes)}",)
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]
