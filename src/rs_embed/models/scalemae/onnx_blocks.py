"""The transformer blocks of the native network, run by ONNX Runtime instead of PyTorch.

Patches, positions, class token and final norm stay with the network; the blocks take nearly all of
its time. The graph is made in memory, where the weights stay as they were loaded: this takes less
than starting ONNX Runtime on them, so that no file of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rs_embed._optional import require
from rs_embed.errors import ModelError
from rs_embed.models.scalemae.network import Block, ScaleMae

if TYPE_CHECKING:
    from rs_embed.models.scalemae.config import NetworkConfig

# Of the operators, and of the format of the graph: ONNX 1.16 and ONNX Runtime 1.19 know them.
_OPSET = 20
_IR_VERSION = 10
_CONTRIB = "com.microsoft"


def require_onnx() -> tuple[Any, Any]:
    """Return the packages onnx and onnxruntime; raise `MissingDependencyError` without them."""
    names = ("onnx", "onnxruntime")
    onnx, runtime = (require(name, extra="onnx", purpose="runtime='onnx'") for name in names)
    return onnx, runtime


def with_onnx_blocks(network: ScaleMae) -> ScaleMae:
    """Return a network on the CPU, in float32, whose blocks ONNX Runtime computes.

    It computes with as many threads as PyTorch has now.
    """
    return _with_onnx_blocks(network, torch.get_num_threads())


@lru_cache(maxsize=2)
def _with_onnx_blocks(network: ScaleMae, threads: int) -> ScaleMae:
    with torch.device("meta"):
        twin = ScaleMae(network.config)
    twin.blocks = nn.ModuleList([OnnxBlocks(network, threads)])
    state = network.state_dict()
    rest = {key: value for key, value in state.items() if not key.startswith("blocks.")}
    twin.load_state_dict(rest, assign=True)
    return twin.eval().requires_grad_(False)


class OnnxBlocks(nn.Module):
    """All blocks of a network as one module.

    Parameters
    ----------
    network : ScaleMae
        The network; its weights are used where they are.
    threads : int
        Threads that ONNX Runtime computes with.
    """

    def __init__(self, network: ScaleMae, threads: int) -> None:
        super().__init__()
        self._graph = _Graph(network.config)
        for block in network.blocks:
            self._graph.add(cast(Block, block))
        self._threads = threads
        self._sessions: dict[int, Any] = {}
        self._session()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``B N D`` for ``B N D``.

        Raises
        ------
        ModelError
            If ONNX Runtime fails, for example because there is not enough memory.
        """
        session = self._session()
        with _errors(f"compute tokens of shape {tuple(x.shape)}"):
            (encoded,) = session.run(None, {"x0": x.contiguous().numpy()})
        return torch.from_numpy(encoded)

    def _session(self) -> Any:
        """Return the session of this process: one that was forked lacks the threads of another."""
        process = os.getpid()
        if process not in self._sessions:
            with _errors("start"):
                self._sessions[process] = self._graph.session(self._threads)
        return self._sessions[process]


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
    """A graph of blocks that grows by one at a time. Tokens are rows: ``B*N D`` but for attention.

    Linear layers are ``Gemm`` with ``transB``, which takes the weights in the layout of PyTorch.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._onnx, self._runtime = require_onnx()
        self._config = config
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}
        self._constants = {"rows": [-1, config.embed_dim], "thirds": [config.embed_dim] * 3}
        self._add("Shape", ["x0"], "shape")
        self._last = self._add("Reshape", ["x0", "rows"], "x")

    def add(self, block: Block) -> None:
        """Append a block; see `rs_embed.models.scalemae.network.Block`."""
        x = self._last
        qkv = self._linear(self._norm(x, block.norm1), block.attn.qkv)
        parts = [f"{qkv}.{part}" for part in "qkv"]
        self._add("Split", [qkv, "thirds"], *parts, axis=1)
        heads = [self._add("Reshape", [part, "shape"]) for part in parts]  # B N D
        mixed = self._add(
            "MultiHeadAttention", heads, domain=_CONTRIB, num_heads=self._config.num_heads
        )
        rows = self._add("Reshape", [mixed, "rows"])
        x = self._add("Add", [x, self._linear(rows, block.attn.proj)])
        hidden = self._add("Gelu", [self._linear(self._norm(x, block.norm2), block.mlp.fc1)])
        self._last = self._add("Add", [x, self._linear(hidden, block.mlp.fc2)])

    def session(self, threads: int) -> Any:
        """Return an ``InferenceSession`` from ``x0`` to the tokens after the last block."""
        onnx, runtime = self._onnx, self._runtime
        helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(name, float32, ["B", "N", self._config.embed_dim])
            for name in ("x0", "encoded")
        ]
        end = helper.make_node("Reshape", [self._last, "shape"], ["encoded"])
        constants = [
            helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
            for name, values in self._constants.items()
        ]
        external = [
            onnx.TensorProto(
                name=name, data_type=float32, dims=values.shape,
                data_location=onnx.TensorProto.EXTERNAL,
                external_data=[{"key": "location", "value": "memory"}],
            )
            for name, values in self._weights.items()
        ]  # fmt: skip
        graph = helper.make_graph(
            [*self._nodes, end], "blocks", ends[:1], ends[1:], [*constants, *external]
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait do not take the cores from others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        in_memory = map(runtime.OrtValue.ortvalue_from_numpy, self._weights.values())
        options.add_external_initializers(list(self._weights), list(in_memory))
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def _norm(self, x: str, norm: nn.LayerNorm) -> str:
        return self._add("LayerNormalization", [x, *self._state(norm)], epsilon=norm.eps)

    def _linear(self, x: str, linear: nn.Linear) -> str:
        return self._add("Gemm", [x, *self._state(linear)], transB=1)

    def _state(self, module: nn.LayerNorm | nn.Linear) -> list[str]:
        """Return the names of weight and bias."""
        names = []
        for parameter in (module.weight, module.bias):
            names.append(f"w{len(self._weights)}")
            self._weights[names[-1]] = parameter.detach().contiguous().numpy()
        return names

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        outputs = outputs or (f"{operator}{len(self._nodes)}",)
        node = self._onnx.helper.make_node(operator, inputs, outputs, **attributes)
        self._nodes.append(node)
        return outputs[0]
