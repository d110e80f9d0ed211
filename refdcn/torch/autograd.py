"""Derivatives of every order, and vmap, of the registered operator.

F(x, offset, weight, mask, bias) is the operator, B(grad_y, ...) its gradients.
F is linear in x, weight, mask and bias; where an offset changes by v,

    dF = sum_k w_k * dm_k * (v_y * dx/dq_y + v_x * dx/dq_x)
    dx/dq_y (q) = x(floor(q_y) + 1, q_x) - x(floor(q_y), q_x)

is again F, at offsets moved to integer rows (or columns), with the mask
dm_k * v: Eq. (4) by Eq. (2), right-hand at integers. So the tangent of F is a
sum of F, and its gradients, which are the second order, a sum of B: kernels for
F and B suffice for every order, and each is as fast as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from refdcn.torch import library, onnx
from refdcn.torch.library import Conv, Needs, wide

Optional: TypeAlias = Tensor | None


def deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Optional, bias: Optional,
    *, conv: Conv,
) -> Tensor:  # fmt: skip
    """F, differentiable to any order and under every transform."""
    # Dynamo refuses an autograd.Function with a jvp, and torch.func an operator
    # with registered autograd: each gets the one that it takes.
    if torch.compiler.is_compiling():
        _refuse_compiled_forward_mode()
        return library.forward(x, offset, weight, mask, bias, *conv)
    # TorchScript saves operators, no autograd.Function.
    if torch.jit.is_tracing() and not onnx.is_early():
        return library.forward(x, offset, weight, mask, bias, *conv)
    return differentiable(x, offset, weight, mask, bias, *conv)


def differentiable(*args: Any) -> Any:
    """F with its derivatives; the arguments are the operator's."""
    if onnx.is_early():
        return onnx.deform_conv_by_sampling(*args)
    if torch.onnx.is_in_onnx_export():
        return onnx.deform_conv_node(*args)
    if _may_be_differentiated(args):
        return Forward.apply(*args)
    return Forward.forward(*args)


def _may_be_differentiated(args: Sequence[Any]) -> bool:
    """Whether a derivative or a transform may ask; else a call is 60 us shorter."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(
        isinstance(a, Tensor) and a.requires_grad for a in args
    )


def differentiable_operator(*args: Any) -> Any:
    """The same of a registered operator, which torch.func cannot enter."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "of torch.func, a registered operator has vmap alone; grad, vjp, jvp and "
            "the like take refdcn.torch.deform_conv2d, outside torch.compile"
        )
    return differentiable(*args)


def gradients(
    grad_y: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Optional,
    *, conv: Conv, needs: Needs,
) -> tuple[Optional, ...]:  # fmt: skip
    """B, of x, offset, weight, mask, bias; None where not needed."""
    compiling = torch.compiler.is_compiling()
    apply = library.backward if compiling else Backward.apply
    grads = apply(grad_y, x, offset, weight, mask, *conv, needs)
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


def tangent(primals: Sequence[Any], tangents: Sequence[Any], conv: Conv) -> Tensor:
    """dF of x, offset, weight, mask along those of `tangents` that are given."""
    dtype = primals[0].dtype
    x, offset, weight, mask = map(wide, primals)
    dx, doffset, dweight, dmask, dbias = map(wide, tangents)
    terms = []
    if dx is not None:
        terms.append((dx, offset, weight, mask))
    if doffset is not None:
        slopes = _slopes(offset, doffset, mask, weight.shape[2:], conv)
        terms += [(x, moved, weight, scaled) for moved, scaled in slopes]
    if dweight is not None:
        terms.append((x, offset, dweight, mask))
    if dmask is not None:
        terms.append((x, offset, weight, dmask))
    dy = [deform_conv2d(*term, None, conv=conv) for term in terms]
    if dbias is not None:
        dy.append(dbias[:, None, None].expand(len(x), -1, *offset.shape[2:]))
    return torch.stack(dy).sum(0).to(dtype)


def _slopes(
    offset: Tensor, v: Tensor, mask: Optional, kernel: Sequence[int], conv: Conv
) -> Iterator[tuple[Tensor, Tensor]]:
    """Offset and mask of the four samples that make dF along v."""
    N, channels, *out = offset.shape
    pairs = N, channels // 2, 2, *out  # [N, offset_groups * K, (dy, dx), H_out, W_out]
    dp, v = offset.reshape(pairs), v.reshape(pairs)
    taps = torch.cartesian_prod(*(torch.arange(k, device=v.device) for k in kernel))
    taps = taps.repeat(channels // (2 * len(taps)), 1)
    for axis in (0, 1):
        p = torch.arange(out[axis], device=v.device)
        p = conv.stride[axis] * p - conv.padding[2 * axis]
        p = p[:, None] if axis == 0 else p
        base = (p + conv.dilation[axis] * taps[:, axis, None, None]).to(v.dtype)
        below = torch.floor(base + dp[:, :, axis]) - base
        scale = v[:, :, axis] if mask is None else v[:, :, axis] * mask
        for place, sign in ((below + 1, 1), (below, -1)):
            moved = (place, dp[:, :, 1]) if axis == 0 else (dp[:, :, 0], place)
            yield torch.stack(moved, 2).reshape(offset.shape), sign * scale


def tangent_gradients(
    grad_y: Tensor, primals: Sequence[Any], tangents: Sequence[Any],
    conv: Conv, needs: Needs,
) -> tuple[Optional, ...]:  # fmt: skip
    """d sum(grad_y * dF) / d x, offset, weight, mask; None where not needed."""
    chosen = [i for i, need in enumerate(needs) if need]
    if not chosen or all(t is None for t in tangents):
        return (None,) * len(needs)

    def along(*values: Tensor) -> Tensor:
        point = list(primals)
        for i, value in zip(chosen, values, strict=True):
            point[i] = value
        return tangent(point, tangents, conv)

    _, pull_back = torch.func.vjp(along, *(primals[i] for i in chosen))
    grads = iter(pull_back(grad_y))
    return tuple(next(grads) if need else None for need in needs)


class Fold:
    """One call for a batch of calls: x and y keep the batch at dimension `image`.

    It joins N; where each call has weights of its own it joins the channels, and
    the calls become groups and offset groups.
    """

    def __init__(self, size: int, own_weights: bool) -> None:
        self.size, self.image = size, int(own_weights)

    def images(
        self, tensors: Sequence[Optional], dims: Sequence[int | None]
    ) -> list[Any]:
        """Of x, offset, mask, grad_y."""
        at = self.image
        return [self._fold(t, d, at) for t, d in zip(tensors, dims, strict=True)]

    def weight(self, tensor: Optional, dim: int | None) -> Optional:
        """Also of the bias."""
        return self._fold(tensor, dim, 0) if self.image else tensor

    def _fold(self, tensor: Optional, dim: int | None, at: int) -> Optional:
        if tensor is None:
            return None
        if dim is None:
            sizes = [-1] * (tensor.ndim + 1)
            sizes[at] = self.size
            batch = tensor.unsqueeze(at).expand(sizes)
        else:
            batch = tensor.movedim(dim, at)
        return batch.flatten(at, at + 1)

    def undo(self, tensor: Tensor, at: int) -> Tensor:
        return tensor.unflatten(at, (self.size, tensor.shape[at] // self.size))


def forward_batch(
    apply: Callable[..., Tensor], info: Any, in_dims: Sequence[Any], *args: Any
) -> tuple[Tensor, int]:
    """vmap of F: y and where its batch is."""
    x, offset, weight, mask, bias, *conv = args
    x_dim, offset_dim, weight_dim, mask_dim, bias_dim, *_ = in_dims
    own_weights = weight_dim is not None or bias_dim is not None
    fold = Fold(info.batch_size, own_weights)
    x, offset, mask = fold.images((x, offset, mask), (x_dim, offset_dim, mask_dim))
    weight, bias = fold.weight(weight, weight_dim), fold.weight(bias, bias_dim)
    y = apply(x, offset, weight, mask, bias, *conv)
    return fold.undo(y, fold.image), fold.image


def backward_batch(
    apply: Callable[..., tuple[Tensor, ...]],
    info: Any, in_dims: Sequence[Any], *args: Any,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:  # fmt: skip
    """vmap of B: the gradients and where their batches are."""
    grad_y, x, offset, weight, mask, *conv, needs = args
    grad_y_dim, x_dim, offset_dim, weight_dim, mask_dim, *_ = in_dims
    fold = Fold(info.batch_size, weight_dim is not None or needs[2] or needs[4])
    grad_y, x, offset, mask = fold.images(
        (grad_y, x, offset, mask), (grad_y_dim, x_dim, offset_dim, mask_dim)
    )
    weight = fold.weight(weight, weight_dim)
    grads = apply(grad_y, x, offset, weight, mask, *conv, needs)
    places = fold.image, fold.image, 0, fold.image, 0
    dims = tuple(at if need else None for at, need in zip(places, needs, strict=True))
    undone = tuple(
        grad if at is None else fold.undo(grad, at)
        for grad, at in zip(grads, dims, strict=True)
    )
    return undone, dims


class Forward(torch.autograd.Function):
    """F with its derivatives."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():  # or it would come back here
            return library.forward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *primals, _, stride, padding, dilation = inputs  # no derivative has the bias
        ctx.conv = Conv(stride, padding, dilation)
        ctx.save_for_backward(*primals)
        ctx.save_for_forward(*primals)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_y: Optional) -> tuple[Optional, ...]:
        if grad_y is None:
            return (None,) * 8
        needs = tuple(ctx.needs_input_grad[:5])
        grads = gradients(grad_y, *ctx.saved_tensors, conv=ctx.conv, needs=needs)
        return *grads, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        _refuse_nested_forward_mode()
        return tangent(ctx.saved_tensors, tangents[:5], ctx.conv)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Tensor, int]:
        return forward_batch(Forward.apply, info, in_dims, *args)


class Backward(torch.autograd.Function):
    """B with its derivatives."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...] = library.backward(*args)
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, stride, padding, dilation, needs = inputs
        ctx.conv, ctx.needs = Conv(stride, padding, dilation), tuple(needs)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *tangents: Optional) -> tuple[Optional, ...]:
        grad_y, *primals = ctx.saved_tensors
        tangents = tuple(
            t if need else None for t, need in zip(tangents, ctx.needs, strict=True)
        )
        if all(t is None for t in tangents):
            return (None,) * 9
        first, *needs = ctx.needs_input_grad[:5]
        grad_grad_y = tangent(primals, tangents, ctx.conv) if first else None
        grads = tangent_gradients(grad_y, primals, tangents, ctx.conv, needs)
        return grad_grad_y, *grads, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        _refuse_nested_forward_mode()
        dgrad_y, *along = tangents[:5]
        grad_y, *primals = ctx.saved_tensors
        bent = tangent_gradients(
            grad_y, primals, (*along, None), ctx.conv, ctx.needs[:4]
        )
        grads: tuple[Optional, ...] = (*bent, None)
        if dgrad_y is not None:  # B is linear in grad_y
            straight = gradients(dgrad_y, *primals, conv=ctx.conv, needs=ctx.needs)
            grads = tuple(map(_add, straight, grads))
        x, offset, weight, mask = primals
        like = x, offset, weight, mask, weight[:, 0, 0, 0]
        return tuple(
            grad_y.new_zeros(t.shape if need else 0) if grad is None else grad
            for grad, t, need in zip(grads, like, ctx.needs, strict=True)
        )

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], *args: Any) -> tuple[Any, Any]:
        return backward_batch(Backward.apply, info, in_dims, *args)


def _add(a: Optional, b: Optional) -> Optional:
    return b if a is None else a if b is None else a + b


def _refuse_compiled_forward_mode() -> None:
    """torch would give a tangent of 0 and say nothing."""
    if forward_ad._current_level >= 0:
        raise NotImplementedError(
            "deform_conv2d has no forward-mode derivative in a compiled or exported "
            "function; call torch.func.jvp or jacfwd outside torch.compile"
        )


def _refuse_nested_forward_mode() -> None:
    """torch would give a second tangent of 0 and say nothing."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    kinds = [level.key() for level in stack]
    if kinds.count(torch._C._functorch.TransformType.Jvp) > 1:
        raise NotImplementedError(
            "deform_conv2d has no forward-mode derivative of a forward-mode "
            "derivative; let jacrev or grad be one of the two, as torch.func.hessian "
            "does"
        )


# torch asks for the signature of a forward in every call, and 16 us of a call of 180
# went by until it was found.
for computed in (Forward.forward, Backward.forward):
    vars(computed)["__signature__"] = signature(computed)

# The operators themselves carry their derivatives too: graphs that were exported
# or compiled call them without the functions above.
library.library.impl("deform_conv2d", differentiable_operator, "Autograd")
torch.library.register_autograd(
    library.backward,
    Backward.backward,
    setup_context=Backward.setup_context,
    lib=library.library,
)
for operator, batch in (
    (library.forward, forward_batch),
    (library.backward, backward_batch),
):
    torch.library.register_vmap(operator, partial(batch, operator), lib=library.library)
