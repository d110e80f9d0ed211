"""The operator in the form of other libraries, right, and with x and y exchanged."""

from refdcn.formula import deform_conv2d, deform_conv2d_grad


def exchanged(offset):
    """(x, y) for (y, x)."""
    N, C, *out = offset.shape
    return offset.reshape(N, -1, 2, *out)[:, :, [1, 0]].reshape(N, C, *out)


def refdcn(x, offset, weight, mask, bias, *, stride, padding, dilation):
    windows = {"stride": stride, "padding": padding, "dilation": dilation}
    return deform_conv2d(x, offset, weight, mask, bias, **windows)


def refdcn_grad(*inputs, **windows):
    return deform_conv2d_grad(*inputs, **windows)


def refdcn_swapped(x, offset, weight, mask, bias, **windows):
    return deform_conv2d(x, exchanged(offset), weight, mask, bias, **windows)


def groups(x, offset, weight, mask, bias, *, groups, offset_groups, **windows):
    assert groups == x.shape[1] // weight.shape[1]
    K = weight.shape[2] * weight.shape[3]
    if offset.shape[1] != 2 * K * offset_groups:
        raise ValueError("offset has other channels")
    return deform_conv2d(x, offset, weight, mask, bias, **windows)


def groups_swapped(x, offset, weight, mask, bias, *, groups, **windows):
    y = deform_conv2d(x, exchanged(offset), weight, mask, bias, **windows)
    return y if groups else None


def onnx(X, W, offset, B, mask, *, dilations, group, kernel_shape, offset_group,
         pads, strides):  # fmt: skip
    assert list(kernel_shape) == list(W.shape[2:]) and pads[:2] == pads[2:]
    windows = {"stride": strides, "padding": tuple(pads[:2]), "dilation": dilations}
    return deform_conv2d(X, offset, W, mask, B, **windows)


def onnx_swapped(X, W, offset, B, mask, **attributes):
    return onnx(X, W, exchanged(offset), B, mask, **attributes)


def onnx_grad(grad_y, X, W, offset, B, mask, *, pads, strides, dilations, **more):
    windows = {"stride": strides, "padding": tuple(pads[:2]), "dilation": dilations}
    x, o, w, m, b = deform_conv2d_grad(grad_y, X, offset, W, mask, B, **windows)
    return x, w, o, b, m


def onnx_doubled_grad(*inputs, **attributes):
    x, w, *others = onnx_grad(*inputs, **attributes)
    return [x, 2 * w, *others]


def too_few(x, offset):
    return x


def refuses(x, offset, weight, mask, bias, **windows):
    raise ValueError("it takes nothing")


def writes(x, offset, weight, mask, bias, **windows):
    y = deform_conv2d(x, offset, weight, mask, bias, **windows)
    x += 1
    return y
