"""Count the floating-point operations of a step, also where no matrix is multiplied."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Shape = Any  # torch.Size of a tensor; what is no tensor comes as it is

# One operation per number that comes out. Copies, comparisons and the optimizer's updates in place are not arithmetic
# of the model.
PER_OUTPUT = (
    "add", "sub", "mul", "div", "neg", "abs", "pow", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square",
    "reciprocal", "sigmoid", "sigmoid_backward", "tanh", "tanh_backward", "asinh", "relu", "threshold_backward", "elu",
    "elu_backward", "softplus", "softplus_backward", "gelu", "gelu_backward", "silu", "silu_backward", "maximum",
    "minimum", "logaddexp", "_softmax", "_softmax_backward_data", "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training", "native_batch_norm_backward", "native_layer_norm",
    "native_layer_norm_backward", "avg_pool2d", "avg_pool2d_backward", "cumsum",
)  # fmt: skip
PER_INPUT = ("sum", "mean", "amax", "logsumexp", "var", "std")  # one per number that goes in


class _NoModules(nullcontext):
    """Stands where torch tells modules apart: its hooks would hold all that blocks compute which run again."""

    parents = frozenset({"Global"})


def step_counter() -> FlopCounterMode:
    """Make a context that counts: products of matrices and convolutions as torch does, and what it counts as nothing.

    Except that going back through a convolution in groups, torch counts the weights' gradient as if all channels met:
    a filter per neuron would cost as many times too much as there are neurons.

    Fused attention is its products, as many as the kernel makes: two, and five on the way back.

    An LSTM is one operation on a CPU; its gates are counted, its pointwise arithmetic is not.

    A weighted sum of rows (``embedding_bag``: pools, neighbors and point readouts) is a multiplication and an addition
    per number read; pointwise arithmetic is one operation per number.
    """
    aten = torch.ops.aten
    formulas = {
        aten.convolution_backward: _convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        aten.mkldnn_rnn_layer: _recurrent,
        aten.mkldnn_rnn_layer_backward: _recurrent_backward,
        aten._embedding_bag: _bag,
        aten._embedding_bag_forward_only: _bag,
        aten._embedding_bag_backward: _bag_backward,
        aten._embedding_bag_dense_backward: _bag_backward,
        aten._embedding_bag_per_sample_weights_backward: _bag_weights_backward,
    }
    formulas |= {getattr(aten, name): _per_output for name in PER_OUTPUT}
    formulas |= {getattr(aten, name): _twice_per_output for name in ("addcmul", "addcdiv")}
    formulas |= {
        getattr(aten, name): _per_source for name in ("index_add", "index_add_", "scatter_add", "scatter_add_")
    }
    formulas |= {getattr(aten, name): _per_input for name in PER_INPUT}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    counter.mod_tracker = _NoModules()  # pyright: ignore[reportAttributeAccessIssue]
    return counter


def _convolution_backward(
    grad: Shape, x: Shape, weight: Shape, *rest: Any, out_shape: Shape = None, **named: Any
) -> int:
    """Each of the two gradients takes the multiplications of the forward pass."""
    transposed, wanted = rest[4], rest[7]
    return 2 * math.prod(x if transposed else grad) * math.prod(weight[1:]) * sum(wanted[:2])


def _attention(query: Shape, key: Shape, *rest: Any, **named: Any) -> int:
    """Two products: torch counts the kernels of cards, and takes that of CPUs for nothing."""
    return 2 * 2 * math.prod(query) * key[-2]


def _attention_backward(grad: Shape, query: Shape, key: Shape, *rest: Any, **named: Any) -> int:
    return 5 * 2 * math.prod(query) * key[-2]


def _recurrent(x: Shape, of_input: Shape, of_state: Shape, *rest: Any, **named: Any) -> int:
    """Gates of an LSTM in one direction: what comes in and what was, in every frame."""
    return 2 * math.prod(x[:-1]) * (math.prod(of_input) + math.prod(of_state))


def _recurrent_backward(*shapes: Any, **named: Any) -> int:
    """Gradients of what came in and of the weights."""
    return 2 * _recurrent(*shapes)


def _bag(table: Shape, indices: Shape, *rest: Any, **named: Any) -> int:
    return 2 * math.prod(indices) * table[1]


def _bag_backward(grad: Shape, indices: Shape, *rest: Any, **named: Any) -> int:
    return 2 * math.prod(indices) * grad[1]


def _bag_weights_backward(grad: Shape, table: Shape, indices: Shape, *rest: Any, **named: Any) -> int:
    return 2 * math.prod(indices) * table[1]


def _per_output(*given: Any, out_shape: Shape = None, **named: Any) -> int:
    first = out_shape if isinstance(out_shape, torch.Size) else next(iter(out_shape), ())
    return math.prod(first) if isinstance(first, torch.Size) else 0


def _twice_per_output(*given: Any, out_shape: Shape = None, **named: Any) -> int:
    return 2 * math.prod(out_shape)


def _per_source(into: Shape, dim: int, index: Shape, source: Shape, **named: Any) -> int:
    return math.prod(source)


def _per_input(shape: Shape, *rest: Any, **named: Any) -> int:
    return math.prod(shape)
