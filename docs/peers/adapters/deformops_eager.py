"""deformops' eager backend, channels last, on torch tensors (--array torch)."""

from deformops.backends.eager.conv import conv_eager


def f(x, offset, weight, mask, bias, **windows):
    taps = weight.shape[2] * weight.shape[3]
    G, (N, channels, H_out, W_out) = offset.shape[1] // (2 * taps), offset.shape
    if channels != 2 * G * taps or (mask is not None and mask.shape[1] != G * taps):
        raise ValueError("offset or mask does not fit")
    offset = offset.reshape(N, G, taps, 2, H_out, W_out).permute(0, 4, 5, 1, 2, 3)
    if mask is not None:
        size = len(mask), G, taps, *mask.shape[2:]
        mask = mask.reshape(size).permute(0, 3, 4, 1, 2)
    groups = {"groups": x.shape[1] // weight.shape[1], "offset_groups": G}
    x = x.permute(0, 2, 3, 1)
    y = conv_eager(x, offset, weight, bias, mask, **windows, **groups)
    return y.permute(0, 3, 1, 2)
