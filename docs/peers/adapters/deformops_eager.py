"""deformops' eager backend, on torch tensors (--array torch)."""

from deformops.backends.eager.conv import conv_eager


def f(x, offset, weight, mask, bias, **windows):
    taps = weight.shape[2] * weight.shape[3]
    groups = x.shape[1] // weight.shape[1], max(1, offset.shape[1] // (2 * taps))
    given = {"groups": groups[0], "offset_groups": groups[1]}
    return conv_eager(x, offset, weight, bias, mask, **windows, **given)
