"""MXNet's two operators: with and without a mask."""

import mxnet as mx


def call(x, offset, weight, mask, bias, stride, padding, dilation):
    kernel = weight.shape[2:]
    more = {
        "kernel": kernel, "stride": stride, "pad": padding, "dilate": dilation,
        "num_filter": len(weight), "num_group": x.shape[1] // weight.shape[1],
        "num_deformable_group": max(1, offset.shape[1] // (2 * kernel[0] * kernel[1])),
        "no_bias": bias is None,
    }  # fmt: skip
    inputs = [a for a in (x, offset, mask, weight, bias) if a is not None]
    ops = mx.nd.contrib
    if mask is None:
        return ops.DeformableConvolution(*inputs, **more)
    return ops.ModulatedDeformableConvolution(*inputs, **more)


def arrays(*inputs):
    return [None if a is None else mx.nd.array(a, dtype=a.dtype) for a in inputs]


def modulated(x, offset, weight, mask, bias, **windows):
    """Its gradients are "only implemented in GPU"."""
    if mask is None:
        raise NotImplementedError("no mask")
    return call(*arrays(x, offset, weight, mask, bias), **windows).asnumpy()


def plain(x, offset, weight, mask, bias, **windows):
    if mask is not None:
        raise NotImplementedError("a mask")
    return call(*arrays(x, offset, weight, mask, bias), **windows).asnumpy()


def plain_grad(grad_y, *inputs, **windows):
    if inputs[3] is not None:
        raise NotImplementedError("a mask")
    leaves = arrays(*inputs)
    for a in leaves:
        a is None or a.attach_grad()
    with mx.autograd.record():
        y = call(*leaves, **windows)
    y.backward(*arrays(grad_y))
    return [None if a is None else a.grad.asnumpy() for a in leaves]
