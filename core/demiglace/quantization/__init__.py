"""Integer semantics: packed integer tensors, rounding, and layers that compute with them."""

from demiglace.quantization.affine import fit, to_integers, to_real
from demiglace.quantization.error import TensorError
from demiglace.quantization.floating import floating, with_zeros
from demiglace.quantization.folding import Folded, fold, foldable
from demiglace.quantization.held import held_weights
from demiglace.quantization.in_graph import weights_in_graph
from demiglace.quantization.layers import Layer, Selection, select_layers
from demiglace.quantization.methods import METHODS, Rounding, RoundingMethod, inputs_of, rounding_method
from demiglace.quantization.migration import Migration, migrations
from demiglace.quantization.modules.cast import CastsInputs
from demiglace.quantization.modules.clustered import Clustered
from demiglace.quantization.modules.fake import FakeQuantized
from demiglace.quantization.modules.sparse import SparseLinear, SparseWeight, sparse_swap
from demiglace.quantization.modules.zero_free import may_leave_out_zeros, zero_free_swap
from demiglace.quantization.observers import OBSERVERS, Observer
from demiglace.quantization.packing import pack, unpack
from demiglace.quantization.qtensor import QTensor, grouped
from demiglace.quantization.rounding import fit_weight, round_weight
from demiglace.quantization.scheme import MAX_BITS, MIN_BITS, Scheme, fitting_groups
from demiglace.quantization.shared import SharedTensor
from demiglace.quantization.stored import StoredWeight
from demiglace.quantization.swap import (
    clustered_swap,
    fake_swap,
    has_own_forward,
    own_swaps,
    quantizable_weights,
    quantized_swap,
    refusal,
    weight_only_swap,
)
from demiglace.quantization.trainable import multiplying_integers, untrainable
from demiglace.quantization.zero_free import without_zeros_problem

__all__ = [
    "MAX_BITS",
    "METHODS",
    "MIN_BITS",
    "OBSERVERS",
    "CastsInputs",
    "Clustered",
    "FakeQuantized",
    "Folded",
    "Layer",
    "Migration",
    "Observer",
    "QTensor",
    "Rounding",
    "RoundingMethod",
    "Scheme",
    "Selection",
    "SharedTensor",
    "SparseLinear",
    "SparseWeight",
    "StoredWeight",
    "TensorError",
    "clustered_swap",
    "fake_swap",
    "fit",
    "fit_weight",
    "fitting_groups",
    "floating",
    "fold",
    "foldable",
    "grouped",
    "has_own_forward",
    "held_weights",
    "inputs_of",
    "may_leave_out_zeros",
    "migrations",
    "multiplying_integers",
    "own_swaps",
    "pack",
    "quantizable_weights",
    "quantized_swap",
    "refusal",
    "round_weight",
    "rounding_method",
    "select_layers",
    "sparse_swap",
    "to_integers",
    "to_real",
    "unpack",
    "untrainable",
    "weight_only_swap",
    "weights_in_graph",
    "with_zeros",
    "without_zeros_problem",
    "zero_free_swap",
]
