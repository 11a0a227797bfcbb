"""A plain-data graph as a module: an interpreter with its tensors under their original names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from demiglace.errors import GraphError, UsageError
from demiglace.graph.plain.nodes import GraphData, Here, Input, Node, NodeRef, TensorRef, references, replaced
from demiglace.graph.plain.operators import mode_argument, operator_named


class Layer(nn.Module):
    """What stands for a layer of the traced model: it holds its tensors and its training flag."""

    def __init__(self, original_types: tuple[str, ...] = ()) -> None:
        super().__init__()
        #: Class names of the layer that was traced, from its own to its bases.
        self.original_types = original_types

    def extra_repr(self) -> str:
        return self.original_types[0] if self.original_types else ""


class PlainGraph(Layer):
    """A model that is data: it runs a `GraphData` on its own parameters and buffers.

    Trains, saves and loads as any module. Layers are `Layer` objects under their original names; each
    one's training flag drives the batch norms and dropouts that it called.
    """

    def __init__(
        self, graph_data: GraphData, tensors: Mapping[str, Tensor], training: Mapping[str, bool] | None = None
    ) -> None:
        """Hold `tensors`, by qualified name, as they are; a tensor under two names stays one.

        Raises:
            GraphError: when the graph reads a tensor that is not there, or names do not form a tree.
        """
        super().__init__(graph_data.layers.get("", ()))
        self.graph_data = graph_data
        for name in graph_data.layers:
            self._layer(name)
        for name, tensor in tensors.items():
            self._hold(name, tensor)
        for name, layer in self.named_modules():
            layer.training = (training or {}).get(name, layer.training)
        self._prepare()

    def _layer(self, name: str) -> nn.Module:
        parent: nn.Module = self
        path = ""
        for own in name.split(".") if name else ():
            path = f"{path}.{own}" if path else own
            if own not in parent._modules:
                parent.add_module(own, Layer(self.graph_data.layers.get(path, ())))
            parent = parent._modules[own]  # type: ignore[assignment]
        return parent

    def _hold(self, name: str, tensor: Tensor) -> None:
        path, _, own = name.rpartition(".")
        holder = self._layer(path)
        try:
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(own, tensor)
            else:
                holder.register_buffer(own, tensor, persistent=name not in self.graph_data.transient)
        except KeyError as error:
            raise GraphError(f"a graph cannot hold a tensor called {name!r}: {error}") from None

    def _prepare(self) -> None:
        """Work out once what each call needs: where its tensors are, and which values it reads last."""
        data = self.graph_data
        reads = [*(list(node.references()) for node in data.nodes), list(references(data.outputs))]
        self._homes = {
            one.name: self._home(one.name) for read in reads for one in read if isinstance(one, TensorRef)
        }
        last = {one.name: at for at, read in enumerate(reads) for one in read if isinstance(one, NodeRef)}
        self._dead_after: dict[int, list[str]] = {}
        for name, at in last.items():
            self._dead_after.setdefault(at, []).append(name)
        self._callers = [self.get_submodule(node.layer) for node in data.nodes]

    def _home(self, name: str) -> tuple[nn.Module, str]:
        """The layer that holds a tensor, and the tensor's own name there."""
        path, _, own = name.rpartition(".")
        home = self.get_submodule(path) if path in self.graph_data.layers else None
        if home is None or not (own in home._parameters or own in home._buffers):
            raise GraphError(f"the graph reads {name!r}, which it does not hold")
        return home, own

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(args, kwargs)[0]

    def run(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        keep: Collection[str] = (),
        see: Callable[[str, Any], None] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """The model's output, and the values of the nodes in `keep`.

        Args:
            args: the positional inputs.
            kwargs: the inputs by name.
            keep: names of nodes.
            see: is shown each input and each node's value by name when it is there, before what follows may
                change it in place.

        Raises:
            UsageError: when the inputs do not have the form, dimensions or fixed values that were traced.
        """
        data = self.graph_data
        leaves = list(data.input_tree.flatten((args, dict(kwargs))))
        values = dict(_checked(data.inputs, leaves))
        read: Mapping[type, Callable[[Any], Any]] = {
            NodeRef: lambda one: values[one.name],
            TensorRef: lambda one: getattr(*self._homes[one.name]),
            Here: lambda _: self._device(leaves),
        }
        kept = {}
        for name, value in values.items() if see else ():
            see(name, value)  # type: ignore[misc]
        for at, node in enumerate(data.nodes):
            values[node.name] = self._call(node, self._callers[at].training, read)
            if see:
                see(node.name, values[node.name])
            if node.name in keep:
                kept[node.name] = values[node.name]
            for dead in self._dead_after.get(at, ()):
                del values[dead]
        return data.output_tree.build(iter(replaced(data.outputs, read))), kept

    def _call(self, node: Node, training: bool, read: Mapping[type, Callable[[Any], Any]]) -> Any:
        args = replaced(node.args, read)
        kwargs = {name: replaced(value, read) for name, value in node.kwargs.items()}
        at = mode_argument(node.op)
        # A literal True is a layer that always uses its batch: only False follows the flag.
        if training and at is not None and args[at] is False:
            args[at] = True
            if node.op == "aten.batch_norm.default":
                self._count_batch(node)
        return operator_named(node.op)(*args, **kwargs)

    def _count_batch(self, node: Node) -> None:
        """What `BatchNorm.forward` does beside calling its operator."""
        for reference in node.references():
            if isinstance(reference, TensorRef) and reference.name.endswith("running_mean"):
                counter = getattr(self._homes[reference.name][0], "num_batches_tracked", None)
                if counter is not None:
                    counter.add_(1)

    def _device(self, leaves: list[Any]) -> torch.device:
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)] or list(self.parameters())
        return tensors[0].device if tensors else torch.device("cpu")


def _checked(inputs: list[Input], leaves: list[Any]) -> Iterator[tuple[str, Any]]:
    """The inputs by name, once they are known to be what the graph was traced for."""
    for expected, leaf in zip(inputs, leaves, strict=True):
        if expected.shape is None:
            fits = not isinstance(leaf, Tensor) and leaf == expected.value
            wanted = repr(expected.value)
        else:
            fits = isinstance(leaf, Tensor) and _has_shape(leaf, expected.shape)
            wanted = f"a tensor of shape {expected.shape}"
        if not fits:
            shown = f"one of shape {list(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)
            raise UsageError(
                f"the graph was traced with {wanted} as {expected.name!r}, not {shown}",
                hint="only the batch size is free; trace the model again for other inputs",
            )
        yield expected.name, leaf


def _has_shape(tensor: Tensor, shape: list[int | str]) -> bool:
    pairs = zip(shape, tensor.shape, strict=False)
    return tensor.dim() == len(shape) and all(isinstance(a, str) or a == b for a, b in pairs)
