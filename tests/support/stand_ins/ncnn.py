"""Stands in for ncnn: a network of one layer DeformableConv2D, read from its text."""

from types import SimpleNamespace

import numpy as np
import one_operator as one


class Mat(np.ndarray):
    def __new__(cls, a):
        return a.view(cls)

    def clone(self):
        return self.copy()


class Net:
    """Its layer's numbers have numbers: 1 and 11 are K_w and K_h, and so on."""

    swapped = False

    def __init__(self):
        self.opt = SimpleNamespace()

    def load_param_mem(self, text):
        magic, _, *_, layer, end = text.split("\n")
        assert (magic, end) == ("7767517", "")
        kind, _, inputs, outputs, *words = layer.split()
        assert (kind, outputs, words[int(inputs)]) == ("DeformableConv2D", "1", "y")
        self.names = words[: int(inputs)]
        pairs = (word.split("=") for word in words[int(inputs) + 1 :])
        self.given = {int(k): int(n) for k, n in pairs}

    def load_model(self, path):
        n = self.given
        numbers = np.fromfile(path, np.float32)
        assert numbers[0] == 0 and n[6] == len(numbers) - 1 - n[5] * n[0]
        self.weight = numbers[1 : 1 + n[6]].reshape(n[0], -1, n[11], n[1])
        self.bias = numbers[1 + n[6] :] if n[5] else None
        return 0

    def create_extractor(self):
        return Extractor(self)


class Extractor:
    """One image through a network."""

    def __init__(self, net):
        self.net, self.held = net, {"mask": None}

    def input(self, name, mat):
        assert name in self.net.names
        self.held[name] = np.asarray(mat)[None]

    def extract(self, name):
        assert name == "y"
        n, net, a = self.net.given, self.net, self.held
        assert (n[4], n[14]) == (n[15], n[16])
        windows = {"stride": (n[13], n[3]), "padding": (n[14], n[4])}
        inputs = a["x"], a["offset"], net.weight, a["mask"], net.bias
        places = one.interleaved(a["offset"].shape[1], net.swapped)
        dilation = n[12], n[2]
        y = one.deform_conv2d(one.Tensor, inputs, places, dilation=dilation, **windows)
        return 0, y.array[0]


class Swapped(Net):
    swapped = True


ncnn, ncnn_swapped = Net, Swapped
