"""The operators that a plain-data graph may call, by name. Nothing else runs when a graph is loaded."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch

from demiglace.errors import ArtifactError

# An in-place operator (`relu_`) is listed under the name of the one that is not.
_ATEN = frozenset(
    """
    _adaptive_avg_pool2d _adaptive_avg_pool3d _convolution _native_batch_norm_legit_no_training _softmax
    _log_softmax _to_copy _trilinear _unsafe_view _weight_norm _weight_norm_interface
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
    max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
    max_unpool2d max_unpool3d fractional_max_pool2d
    conv1d conv2d conv3d convolution conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc
    linear bilinear addmm addbmm addmv addr baddbmm bmm mm mv dot vdot inner outer matmul einsum tensordot
    _int_mm chain_matmul linalg_multi_dot linalg_vector_norm linalg_matrix_norm linalg_norm
    scaled_dot_product_attention
    batch_norm instance_norm layer_norm native_layer_norm group_norm native_group_norm rms_norm
    native_batch_norm renorm
    dropout native_dropout feature_dropout alpha_dropout feature_alpha_dropout bernoulli
    celu elu selu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish prelu
    _prelu_kernel relu relu6 rrelu rrelu_with_noise sigmoid silu softplus softshrink tanh
    threshold softmax log_softmax logsumexp
    lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
    embedding embedding_bag one_hot
    abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
    bitwise_xor bitwise_left_shift bitwise_right_shift ceil clamp clamp_max clamp_min clip conj copysign cos
    cosh deg2rad digamma div divide dist eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide
    fmax fmin fmod frac ge greater greater_equal gt hypot isclose isfinite isinf isnan le lerp less
    less_equal lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor
    logit lt masked_fill maximum minimum mul multiply nan_to_num ne neg negative not_equal positive pow
    rad2deg reciprocal remainder round rsqrt rsub sgn sign signbit sin sinc sinh sqrt square sub subtract tan
    true_divide trunc where xlogy special_expit special_logit
    all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod cumsum kthvalue logcumsumexp
    max mean median min mode norm frobenius_norm nansum nanmean prod std std_mean sum var var_mean quantile
    sort argsort topk msort unique_dim
    cosine_similarity pairwise_distance cdist pdist
    alias as_strided atleast_1d atleast_2d atleast_3d broadcast_to cat chunk clone column_stack concat
    concatenate contiguous detach diag diag_embed diagonal dsplit dstack expand expand_as fill flatten flip
    fliplr flipud gather hsplit hstack im2col col2im index index_add index_copy index_fill index_put
    index_select lift lift_fresh lift_fresh_copy masked_scatter masked_select movedim moveaxis narrow
    meshgrid pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d permute pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle ravel repeat repeat_interleave reshape reshape_as roll rot90 scatter scatter_add
    scatter_reduce select select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes
    swapdims t numpy_T mT take take_along_dim tensor_split tile transpose tril triu tril_indices
    triu_indices trace unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze view view_as vsplit vstack
    zero copy to type_as _cast_Float _cast_Half
    arange empty empty_like eye full full_like linspace logspace new_empty new_full new_ones new_zeros ones
    ones_like rand rand_like randn randn_like scalar_tensor zeros zeros_like empty_permuted
    affine_grid_generator grid_sampler grid_sampler_2d grid_sampler_3d upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d
    complex real imag view_as_complex view_as_real polar _fft_r2c _fft_c2r _fft_c2c fft_fft fft_ifft fft_rfft
    fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift
    fft_ifftshift stft istft hann_window hamming_window
    sym_size sym_stride sym_numel sym_storage_offset
    """.split()  # noqa: SIM905
)

# Arithmetic on sizes that follow the batch, and taking one of an operator's several results.
_ON_SIZES: dict[str, Callable[..., Any]] = {
    f"{home.__name__}.{name}": getattr(home, name)
    for home, names in (
        (operator, "getitem add sub mul truediv floordiv mod neg pow eq ne lt le gt ge and_ or_ not_"),
        (math, "ceil floor trunc sqrt"),
        (torch, "sym_max sym_min sym_float sym_int sym_not sym_sum sym_ite"),
    )
    for name in names.split()
}


# Integer arithmetic as operators of our own, and the module that registers them with torch.
_OWN = frozenset(
    f"demiglace.{name}.default"
    for name in (
        *("rounded", "weight", "embedding", "sparse_linear"),
        *("static_linear", "dynamic_linear", "static_convolution"),
    )
)
_OWN_HOME = "demiglace.quantization.operators"

_NAMES = {function: name for name, function in _ON_SIZES.items()}


def name_of(function: Any) -> str:
    """What a graph calls a function that torch.export calls; allowed or not."""
    return _NAMES.get(function, str(function))


def is_allowed(name: str) -> bool:
    """Whether a graph may call the operator of that name."""
    namespace, _, rest = name.partition(".")
    return name in _ON_SIZES or name in _OWN or (namespace == "aten" and _base(rest) in _ATEN)


def _base(name: str) -> str:
    packet = name.partition(".")[0]
    return packet.removesuffix("_") if not packet.endswith("__") else packet


@cache
def operator_named(name: str) -> Callable[..., Any]:
    """The function of an allowed operator.

    Raises:
        ArtifactError: when it is not allowed or this torch has none of that name.
    """
    if name in _ON_SIZES:
        return _ON_SIZES[name]
    if not is_allowed(name):
        raise ArtifactError(
            f"the graph calls {name!r}, which is not an operator that a plain-data graph may call",
            hint="only torch's own tensor operators are allowed",
        )
    namespace, packet, overload = name.split(".")
    if name in _OWN:
        import_module(_OWN_HOME)
    found = getattr(getattr(torch.ops, namespace), packet, None)
    if found is None or overload not in found.overloads():
        raise ArtifactError(f"the graph calls {name!r}, which this torch does not have")
    return getattr(found, overload)


@cache
def mode_argument(name: str) -> int | None:
    """The position of the argument that tells an operator whether it trains, if it has one."""
    if name in _ON_SIZES:
        return None
    schema = operator_named(name)._schema  # type: ignore[attr-defined]
    names = [argument.name for argument in schema.arguments]
    return next((at for at, one in enumerate(names) if one in {"training", "train", "use_input_stats"}), None)
