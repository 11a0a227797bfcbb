"""Layers whose weights are integers and whose arithmetic is floating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from demiglace.graph.plain.module import Layer
from demiglace.quantization.modules.holder import Dequantized, QuantizedHolder
from demiglace.quantization.modules.trained import trained
from demiglace.quantization.operators import embedding, traceable
from demiglace.quantization.qtensor import QTensor


class QuantizedLinear(QuantizedHolder, nn.Linear):
    """`nn.Linear` with an integer weight."""

    weight = Dequantized()
    bias = Dequantized()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(input, self.dequantized("weight", input.dtype), self.bias)


class QuantizedConv1d(QuantizedHolder, nn.Conv1d):
    """`nn.Conv1d` with an integer weight."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedConv2d(QuantizedHolder, nn.Conv2d):
    """`nn.Conv2d` with an integer weight."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedConv3d(QuantizedHolder, nn.Conv3d):
    """`nn.Conv3d` with an integer weight."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedConvTranspose1d(QuantizedHolder, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with an integer weight, its rows the input channels."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedConvTranspose2d(QuantizedHolder, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with an integer weight, its rows the input channels."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedConvTranspose3d(QuantizedHolder, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with an integer weight, its rows the input channels."""

    weight = Dequantized()
    bias = Dequantized()


class QuantizedEmbedding(QuantizedHolder, nn.Embedding):
    """`nn.Embedding` with an integer table, of which only the rows asked for are dequantized."""

    weight = Dequantized()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        held = self.held("weight")
        if not isinstance(held, QTensor):
            rows = held.rows(input.flatten())
            return rows.dequantize(self.compute_dtype).view(*input.shape, self.embedding_dim)
        return traceable(embedding)(
            *(input, held.codes, held.scale, held.zero_point, self.embedding_dim),
            *(held.scheme.bits, held.scheme.group, self.compute_dtype),
        )


class QuantizedMultiheadAttention(QuantizedHolder, nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose own projections are integers; `out_proj` is a layer by itself."""

    in_proj_weight = Dequantized()
    q_proj_weight = Dequantized()
    k_proj_weight = Dequantized()
    v_proj_weight = Dequantized()
    in_proj_bias = Dequantized()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # Attention reads a weight several times in one call: it is dequantized once.
        once = {name: getattr(self, name) for name, _ in self.quantized_weights()}
        self.__dict__.update(once)
        try:
            return super().forward(*args, **kwargs)
        finally:
            for name in once:
                self.__dict__.pop(name, None)


def keeping_forward(old: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """The same layer with integer weights, by its class's own forward, which finds them under their names.

    Args:
        old: any layer.
        options: as `QuantizedHolder` takes them.
    """
    base = type(trained(old))
    weights = {name: Dequantized() for name in options["weights"]}
    made: nn.Module = type(base.__name__, (QuantizedHolder, base), weights)(old, options)
    return made


class QuantizedLayer(QuantizedHolder, Layer):
    """A layer of a plain-data graph that is read and not called: its weights under their names are real."""

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__.get("_schemes", ()):
            return super().__getattr__(name)
        return self.held(name).dequantize(self.compute_dtype)
