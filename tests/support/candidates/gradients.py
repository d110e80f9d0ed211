"""Right forward results with one wrong gradient each, or another slope at kinks."""

import numpy as np

from refdcn import formula


def case(change):
    """The operator and its gradients, changed by `change(grads, arguments)`."""

    def forward(*arguments, **windows):
        return formula.deform_conv2d(*arguments, **windows)

    def grad(*arguments, **windows):
        grads = list(formula.deform_conv2d_grad(*arguments, **windows))
        return change(grads, arguments, windows)

    return forward, grad


def edit(index, f):
    def change(grads, arguments, windows):
        if grads[index] is not None:
            grads[index] = f(grads[index])
        return grads

    return change


right, right_grad = case(lambda grads, *_: grads)
negated, negated_grad = case(edit(1, lambda g: -g))
doubled_x, doubled_x_grad = case(edit(0, lambda g: 2 * g))
mean_weight, mean_weight_grad = case(edit(2, lambda g: g / 2))
no_mask, no_mask_grad = case(edit(3, np.zeros_like))
no_bias, no_bias_grad = case(edit(4, np.zeros_like))
four, four_grad = case(lambda grads, *_: grads[:4])
always_mask, always_mask_grad = case(
    lambda g, *_: [g[0], g[1], g[2], np.ones(3) if g[3] is None else g[3], g[4]]
)


def shifted(step_at):
    """d offset with the slope of a cell chosen by `step_at(q)`."""

    def change(grads, arguments, windows):
        from refdcn.grading.expected.case import Case, offset_shape
        from refdcn.grading.expected.oracle import one_sided, positions

        grad_y, *inputs = arguments
        c = Case("", "", *inputs, **windows, grad_y=grad_y)
        dp = grads[1].astype(float).reshape(offset_shape(c.sizes))
        for axis in (0, 1):
            q = positions(c)[axis]
            below, _ = one_sided(c, axis)
            at = (slice(None),) * 3 + (axis,)
            dp[at] = np.where(step_at(q), below, dp[at])
        grads[1] = dp.reshape(grads[1].shape).astype(grads[1].dtype)
        return grads

    return change


zero_at_minus_one, zero_at_minus_one_grad = case(shifted(lambda q: q == -1))
left_handed, left_handed_grad = case(shifted(lambda q: q == np.round(q)))
