"""A graph's text is read only when every part of it is what a graph may hold."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from demiglace.errors import ArtifactError
from demiglace.graph import Example, ModelGraph
from demiglace.graph.plain import Here, NodeRef, TensorRef, Tree, from_json, lower, to_json
from demiglace.graph.plain.codec import _decoded, _encoded
from demiglace.graph.plain.operators import _ATEN, is_allowed, operator_named


@pytest.fixture(scope="module")
def text() -> str:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    return to_json(lower(ModelGraph(module, Example((torch.randn(2, 3, 4, 4),)))))


def changed(text: str, change) -> str:
    content = json.loads(text)
    change(content)
    return json.dumps(content)


def test_text_to_graph_to_text_changes_nothing(text):
    assert to_json(from_json(text)) == text


def test_reading_a_graph_takes_no_memory_for_its_tensors(text):
    huge = changed(text, lambda c: c["tensors"]["4.weight"].update(shape=[1 << 30, 1 << 20]))
    assert all(tensor.is_meta for tensor in from_json(huge).parameters())


CHANGES = {
    "another format": (lambda c: c.update(format="onnx"), "does not hold a demiglace graph"),
    "a newer version": (lambda c: c.update(version=2), "version 2; this demiglace reads version 1"),
    "an operator that reads files": (
        lambda c: c["nodes"][0].update(op="aten.from_file.default"),
        "from_file",
    ),
    "an operator of another library": (lambda c: c["nodes"][0].update(op="torchvision.nms.default"), "nms"),
    "an import path": (lambda c: c["nodes"][0].update(op="os.system"), "'os.system'"),
    "an attribute path": (lambda c: c["nodes"][0].update(op="aten.add.__class__"), "does not have"),
    "an overload that is not there": (lambda c: c["nodes"][0].update(op="aten.relu.none"), "does not have"),
    "a value that comes later": (
        lambda c: c["nodes"][0]["args"].__setitem__(0, {"node": c["nodes"][-1]["name"]}),
        "does not come before it",
    ),
    "a value that is nowhere": (lambda c: c["nodes"][0]["args"].__setitem__(0, {"node": "x9"}), "'x9'"),
    "a tensor that is nowhere": (lambda c: c["nodes"][0]["args"].__setitem__(1, {"tensor": "w"}), "'w'"),
    "an attribute as a tensor": (
        lambda c: c["nodes"][0]["args"].__setitem__(1, {"tensor": "0.forward"}),
        "does not hold",
    ),
    "an output that is nowhere": (lambda c: c.update(outputs=[{"node": "x9"}]), "'x9'"),
    "two values of one name": (lambda c: c["nodes"][1].update(name=c["nodes"][0]["name"]), "two values"),
    "too many arguments": (lambda c: c["nodes"][0].update(args=[1] * 50), "does not take"),
    "an unknown keyword": (lambda c: c["nodes"][0].update(kwargs={"shell": True}), "does not take"),
    "a strange argument": (lambda c: c["nodes"][0]["args"].append({"eval": "1"}), "not an argument"),
    "two kinds in one": (
        lambda c: c["nodes"][0]["args"].append({"node": "x", "tensor": "y"}),
        "not an argument",
    ),
    "no dtype": (lambda c: c["nodes"][0]["args"].append({"dtype": "load"}), "not an argument"),
    "a layer that is not there": (lambda c: c["nodes"][0].update(layer="none"), "'none'"),
    "a negative size": (lambda c: c["tensors"]["0.weight"].update(shape=[-1]), "sizes"),
    "an endless size": (lambda c: c["tensors"]["0.weight"].update(shape=[1 << 62] * 3), "valid graph"),
    "a size that is no number": (lambda c: c["tensors"]["0.weight"].update(shape=["4"]), "sizes"),
    "a tie to nothing": (lambda c: c["tensors"]["0.weight"].update(same_as="none"), "valid graph"),
    "a kind of tensor": (lambda c: c["tensors"]["0.weight"].update(kind="pickle"), "valid graph"),
    "a name inside a tensor": (
        lambda c: c["tensors"].update({"0.weight.x": c["tensors"]["0.weight"]}),
        "valid graph",
    ),
    "outputs without containers": (lambda c: c.update(outputs=[]), "containers"),
    "a class as a container": (
        lambda c: c.update(
            output_tree={"kind": "named_tuple", "keys": ["a"], "name": "x y", "children": [None]}
        ),
        "not a container",
    ),
    "no nodes": (lambda c: c.pop("nodes"), "valid graph"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_forged_graph_is_refused(text, what):
    change, said = CHANGES[what]
    with pytest.raises(ArtifactError, match=said):
        from_json(changed(text, change))


@pytest.mark.parametrize("broken", ["", "[]", "null", "{", "[" * 100_000, '{"format": "demiglace-graph"}'])
def test_what_is_no_graph_is_refused(broken):
    with pytest.raises(ArtifactError):
        from_json(broken)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.complex_numbers(allow_nan=False),
    st.sampled_from([torch.float32, torch.bool, torch.strided, torch.channels_last, Here()]),
    st.builds(NodeRef, st.text(max_size=5)),
    st.builds(TensorRef, st.text(max_size=5)),
)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=8))
def test_every_argument_comes_back(value):
    encoded = json.loads(json.dumps(_encoded(value), allow_nan=False))
    again = _decoded(encoded)
    assert again == value
    assert type(again) is type(value)


def test_nan_comes_back():
    assert math.isnan(_decoded(json.loads(json.dumps(_encoded(math.nan), allow_nan=False))))


def test_an_argument_that_is_no_plain_data_is_refused():
    with pytest.raises(Exception, match="cannot hold a bytes"):
        _encoded(b"")


@pytest.mark.parametrize(
    "name",
    [
        *("aten.from_file.default", "aten._local_scalar_dense.default", "aten.resize_.default", "os.system"),
        *(
            "aten",
            "aten.",
            "",
            "operator.methodcaller",
            "operator.attrgetter",
            "prim.device.default",
            "quantized.linear",
        ),
    ],
)
def test_nothing_else_is_allowed(name):
    assert not is_allowed(name)
    with pytest.raises(ArtifactError, match="may call"):
        operator_named(name)


def test_every_allowed_operator_exists():
    aten = torch.ops.aten
    assert not [name for name in _ATEN if not (hasattr(aten, name) or hasattr(aten, f"{name}_"))]


@given(st.data())
def test_containers_come_back(data):
    value = data.draw(
        st.recursive(
            st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.tuples(inner, inner)
                | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3)
            ),
            max_leaves=6,
        )
    )
    from torch.utils._pytree import tree_flatten

    from demiglace.graph.plain.tree import tree_of

    leaves, spec = tree_flatten(value)
    tree = Tree.from_json(json.loads(json.dumps(tree_of(spec).to_json())))
    assert list(tree.flatten(value)) == leaves
    assert tree.build(iter(leaves)) == value
    assert tree.count() == len(leaves)
