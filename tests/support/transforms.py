"""What torch can do with an operator: each line a check, run on three operators.

    python tests/support/transforms.py          writes the table of docs/torch.md anew
    python tests/support/transforms.py --print  shows the page as it would be
    python tests/support/transforms.py --json   that, and what refdcn's operator met

A check is given `op(x, offset, weight, mask, bias)`, float64 arguments in its domain,
and passes, raises, or finds a wrong answer. The table is made of what happened.
"""

import copy
import io
import json
import pickle
import sys
import threading
import traceback
import warnings
from functools import cache, partial
from pathlib import Path
from unittest import mock

import torch
import torchvision
from torch import func
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.export import Dim

import refdcn.cpu
from refdcn.torch import accelerate_torchvision, deform_conv2d, torchvision_is_native

# Of torch's own doing: forward mode loads torch.jit.script, opcheck reads .grad.
TORCHS_OWN = (
    ".*torch.jit.script",
    "The .grad attribute of a Tensor that is not a leaf",
)

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
BEGIN, END = "<!-- transforms: begin -->", "<!-- transforms: end -->"

refdcn_op = partial(deform_conv2d, padding=1)


def torchvision_op(x, offset, weight, mask=None, bias=None):
    """torchvision's, its arguments in our order."""
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, mask=mask, padding=1)


def arguments(dtype=torch.float64, N=2, C=4, O=4, groups=2, size=(4, 5), grad=False):
    """x, offset, weight, mask, bias of a 2x3 kernel with padding 1.

    No position is within 0.1 of an integer, where the slopes jump.
    """
    rng = torch.Generator().manual_seed(7)
    (H, W), K = size, 6
    H_out, W_out = H + 1, W

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    offset = normal(N, groups * 2 * K, H_out, W_out).floor()
    offset += 0.1 + 0.8 * torch.rand(offset.shape, generator=rng, dtype=torch.float64)
    tensors = (
        normal(N, C, H, W), offset, normal(O, C // groups, 2, 3),
        normal(N, groups * K, H_out, W_out), normal(O),
    )  # fmt: skip
    return tuple(t.to(dtype).requires_grad_(grad) for t in tensors)


tiny = partial(arguments, N=1, C=2, O=2, groups=1, size=(2, 3))
EVERY = (0, 1, 2, 3, 4)


def squares(op):
    """A scalar whose derivatives of every order are none of them 0."""
    return lambda *tensors: op(*tensors).square().sum()


def same(got, wanted, terms=256):
    """Equal up to the roundings of sums of so many terms."""
    got, wanted = (
        (a,) if isinstance(a, torch.Tensor) else tuple(a) for a in (got, wanted)
    )
    for a, b in zip(got, wanted, strict=True):
        assert a is not None and b is not None, "one is None"
        assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape)
        largest = b.detach().abs().max() if b.numel() else 0
        bound = terms * torch.finfo(b.dtype).eps * (1 + largest)
        assert bool(((a - b).abs() <= bound).all()), "values differ"


def backward(op, tensors, grad_y=None):
    """(y, gradients) by autograd."""
    y = op(*tensors)
    grad_y = 2 * y.detach() if grad_y is None else grad_y
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    return y, torch.autograd.grad(y, wanted, grad_y)


# --- The checks, each named by its line ----------------------------------------------

CHECKS = {}


def line(name):
    def add(check):
        CHECKS[name] = check
        return check

    return add


@line("first derivatives, all five")
def first(op):
    assert gradcheck(op, tiny(grad=True))


@line("second derivatives (double backward)")
def second(op):
    assert gradgradcheck(op, tiny(grad=True))


@line("third derivatives")
def third(op):
    def curvature(*tensors):
        y = squares(op)(*tensors)
        grads = torch.autograd.grad(y, tensors[:2], create_graph=True)
        mixed = sum(g.square().sum() for g in grads)
        return torch.autograd.grad(mixed, tensors, create_graph=True)

    assert gradcheck(curvature, tiny(grad=True), fast_mode=True)


@line("requires_grad on any subset")
def subsets(op):
    every = dict(zip(EVERY, backward(op, arguments(grad=True))[1], strict=True))
    for chosen in range(1, 32):
        tensors = arguments()
        some = [i for i in EVERY if chosen >> i & 1]
        for i in some:
            tensors[i].requires_grad_()
        same(backward(op, tensors)[1], [every[i] for i in some])


@line("expanded gradients (stride 0)")
def expanded(op):
    tensors = arguments(grad=True)
    y = op(*tensors)
    grads = torch.autograd.grad(y.sum(), tensors)
    same(grads, backward(op, tensors, torch.ones_like(y))[1])


@line("forward mode (torch.autograd.forward_ad)")
def forward_mode(op):
    tensors = arguments()
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, t.cos()) for t in tensors]
        tangent = forward_ad.unpack_dual(op(*duals)).tangent
    assert tangent is not None, "no tangent"
    grad_y = op(*tensors).sin()
    grads = backward(op, arguments(grad=True), grad_y)[1]
    inner = sum((g * t.cos()).sum() for g, t in zip(grads, tensors, strict=True))
    same((tangent * grad_y).sum(), inner)


@line("torch.func.grad, vjp")
def func_grad(op):
    tensors = arguments()
    y, wanted = backward(op, arguments(grad=True))
    same(func.grad(squares(op), argnums=EVERY)(*tensors), wanted)
    same(func.vjp(op, *tensors)[1](2 * y.detach()), wanted)


@line("torch.func.jvp")
def func_jvp(op):
    tensors = arguments()
    slope = func.jvp(squares(op), tensors, tensors)[1]
    grads = backward(op, arguments(grad=True))[1]
    same(slope, sum((g * t).sum() for g, t in zip(grads, tensors, strict=True)))


@line("torch.func.jacrev, jacfwd")
def jacobians(op):
    tensors = tiny()
    y = op(*tensors)
    by_row = func.jacrev(op, argnums=EVERY)(*tensors)
    grads = backward(op, tiny(grad=True))[1]
    same([torch.tensordot(2 * y, j, y.ndim) for j in by_row], grads)
    same(func.jacfwd(op, argnums=EVERY)(*tensors), by_row)


@line("torch.func.hessian")
def hessians(op):
    f = partial(lambda rest, *two: squares(op)(*two, *rest), tiny()[2:])
    two = tiny()[:2]
    fast = func.hessian(f, argnums=(0, 1))(*two)
    wanted = torch.autograd.functional.hessian(f, two)
    same([h for row in fast for h in row], [h for row in wanted for h in row])


@line("forward mode of forward mode")
def forward_forward(op):
    x, *rest = tiny()
    f = lambda offset: squares(op)(x, offset, *rest[1:])  # noqa: E731
    same(func.jacfwd(func.jacfwd(f))(rest[0]), func.hessian(f)(rest[0]))


def batches(dims, size=3):
    """Stacked arguments, and them one by one."""
    single = arguments()
    stacked = [
        t if d is None else torch.stack([t * (1 + i / 8) for i in range(size)], d)
        for t, d in zip(single, dims, strict=True)
    ]
    loop = [
        [t if d is None else t.select(d, i) for t, d in zip(stacked, dims, strict=True)]
        for i in range(size)
    ]
    return stacked, loop


IMAGES, WEIGHTS = (0, 1, None, 2, None), (None, 0, 1, None, 0)


def mapped(op, dims):
    stacked, loop = batches(dims)
    got = func.vmap(op, in_dims=dims)(*stacked)
    same(got, torch.stack([op(*one) for one in loop]))


@line("torch.func.vmap over images")
def vmap_images(op):
    mapped(op, IMAGES)


@line("torch.func.vmap over weights")
def vmap_weights(op):
    mapped(op, WEIGHTS)


@line("vmap(grad): a gradient for each image")
def vmap_grad(op):
    gradient = func.grad(squares(op), argnums=EVERY)
    for dims in (IMAGES, WEIGHTS):
        stacked, loop = batches(dims)
        got = func.vmap(gradient, in_dims=dims)(*stacked)
        each = zip(*(gradient(*one) for one in loop), strict=True)
        same(got, map(torch.stack, each))


def compiled(f, **options):
    torch.compiler.reset()
    return torch.compile(f, fullgraph=True, **options)


@line("torch.compile(fullgraph=True), forward and backward")
def compile_whole(op):
    fast = compiled(op)
    y, grads = backward(op, arguments(grad=True))
    got, got_grads = backward(fast, arguments(grad=True), 2 * y.detach())
    same((got, *got_grads), (y, *grads))


@line("torch.compile with dynamic sizes")
def compile_dynamic(op):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    fast = compiled(op, backend=count, dynamic=True)
    for N, size in ((5, (10, 13)), (7, (8, 9))):  # unlike any other size
        tensors = arguments(N=N, size=size)
        same(fast(*tensors), op(*tensors))
    assert len(graphs) == 1


@line("torch.compile of vmap")
def compile_vmap(op):
    stacked, loop = batches(IMAGES)
    fast = compiled(func.vmap(op, in_dims=IMAGES), backend="aot_eager")
    same(fast(*stacked), torch.stack([op(*one) for one in loop]))


@line("torch.compile of torch.func.grad")
def compile_grad(op):
    tensors = arguments()
    fast = compiled(func.grad(squares(op)), backend="aot_eager")
    same(fast(*tensors), backward(op, arguments(grad=True))[1][0])


@line("torch.compile of torch.func.jvp")
def compile_jvp(op):
    tensors = arguments()
    fast = compiled(lambda *t: func.jvp(squares(op), t, t)[1], backend="aot_eager")
    grads = backward(op, arguments(grad=True))[1]
    same(
        fast(*tensors), sum((g * t).sum() for g, t in zip(grads, tensors, strict=True))
    )


class Layer(torch.nn.Module):
    """Offsets from the input, as a network has them."""

    def __init__(self, op):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.op = op
        self.offset = torch.nn.Conv2d(4, 24, (2, 3), padding=1).double()
        self.weight = torch.nn.Parameter(arguments()[2])
        with torch.no_grad():
            for p in self.offset.parameters():
                p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype) / 4)

    def forward(self, x):
        return self.op(x, self.offset(x), self.weight)


def exported(op, dynamic=True):
    sizes = {0: Dim("N", min=1), 2: Dim("H", min=3), 3: Dim("W", min=3)}
    shapes = (sizes,) if dynamic else None
    return torch.export.export(Layer(op), arguments()[:1], dynamic_shapes=shapes)


@line("torch.export, batch and size dynamic, trained after it")
def export(op):
    layer, graph = Layer(op), exported(op).module()
    x = arguments(N=3, size=(6, 7))[0]
    found = []
    for f in (layer, graph):
        y = f(x)
        y.square().sum().backward()
        found.append(
            [y, *(f.get_parameter(n).grad for n, _ in layer.named_parameters())]
        )
    same(found[1], found[0])


@line("save, load, deepcopy, pickle")
def copies(op):
    layer = Layer(op)
    x = arguments()[0]
    buffer = io.BytesIO()
    torch.export.save(exported(op, dynamic=False), buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    weights = io.BytesIO()
    torch.save(layer.state_dict(), weights)
    weights.seek(0)
    fresh = Layer(op)
    fresh.load_state_dict(torch.load(weights))
    others = loaded, fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    for other in others:
        same(other(x), layer(x))


@line("activation checkpointing")
def checkpointing(op):
    from torch.utils.checkpoint import checkpoint

    again = partial(checkpoint, op, use_reentrant=False)
    tensors = arguments(grad=True)
    same(backward(again, tensors)[1], backward(op, tensors)[1])


@line("torch.library.opcheck")
def opcheck(op):
    x, offset, weight, mask, bias = arguments(grad=True)
    if op is refdcn_op:
        operator = torch.ops.refdcn.deform_conv2d.default
        inputs = (x, offset, weight, mask, bias, (1, 1), (1, 1, 1, 1), (1, 1))
    else:
        operator = torch.ops.torchvision.deform_conv2d.default
        inputs = (x, weight, offset, mask, bias, 1, 1, 1, 1, 1, 1, 2, 2, True)
    torch.library.opcheck(operator, inputs)


@line("autocast, float32 positions")
def autocast(op):
    x, offset, weight, mask, bias = arguments(torch.float32)
    half = (x.bfloat16(), offset, weight, mask.bfloat16(), bias)
    with torch.autocast("cpu", torch.bfloat16):
        got = op(*half)
    same(got, op(*(t.float() for t in half)).bfloat16(), terms=1)


def half_type(op, dtype):
    tensors = arguments(dtype, size=(4, 40))  # columns that a half type rounds
    y, wanted = op(*tensors), op(*(t.float() for t in tensors)).to(dtype)
    if not torch.equal(y, wanted):
        raise ArithmeticError(f"positions or sums were rounded to {dtype}")


@line("float16, computed in float32")
def float16(op):
    half_type(op, torch.float16)


@line("bfloat16, computed in float32")
def bfloat16(op):
    half_type(op, torch.bfloat16)


@line("channels_last, strided and read-only inputs")
def layouts(op):
    tensors = arguments(grad=True)
    wanted = backward(op, tensors)

    def turned(t):
        return t.detach().transpose(0, -1).contiguous().transpose(0, -1)

    last = [
        t.detach().to(memory_format=torch.channels_last) if t.ndim == 4 else t.detach()
        for t in tensors
    ]
    frozen = []
    for t in tensors:
        array = t.detach().numpy().copy()
        array.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen.append(torch.from_numpy(array))
    for others in (last, [turned(t) for t in tensors], frozen):
        leaves = [t.requires_grad_() for t in others]
        got = backward(op, leaves, 2 * wanted[0].detach())
        same((got[0], *got[1]), (wanted[0], *wanted[1]))


@line("empty batch, with gradients")
def empty(op):
    tensors = arguments(N=0, grad=True)
    y, grads = backward(op, tensors)
    assert y.shape == (0, 4, 5, 5)
    same(grads, [torch.zeros_like(t) for t in tensors])


@line("deterministic algorithms")
def deterministic(op):
    torch.use_deterministic_algorithms(True)
    try:
        once, again = (backward(op, arguments(grad=True)) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip((once[0], *once[1]), (again[0], *again[1]), strict=True):
        assert torch.equal(a, b)


@line("inference mode, meta tensors")
def inference(op):
    tensors = arguments()
    with torch.inference_mode():
        same(op(*tensors).clone(), op(*tensors).clone())
    y = op(*(t.to("meta") for t in tensors))
    assert (y.shape, y.dtype) == ((2, 4, 5, 5), torch.float64)


@line("many Python threads")
def threads(op):
    wanted = backward(op, arguments(grad=True))
    found = []

    def work():
        for _ in range(5):
            found.append(backward(op, arguments(grad=True)))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 40
    for y, grads in found:
        assert all(map(torch.equal, (y, *grads), (wanted[0], *wanted[1])))


class Samples(torch.utils.data.Dataset):
    """The operator in a data pipeline."""

    def __init__(self, op):
        self.op = op

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.op(*arguments())[0] + i


def loaded(op, context):
    op(*arguments())  # the parent has used its threads before
    loader = torch.utils.data.DataLoader(
        Samples(op), batch_size=2, num_workers=1, multiprocessing_context=context,
        timeout=120,
    )  # fmt: skip
    got = torch.cat(list(loader))
    same(got, torch.stack([op(*arguments())[0] + i for i in range(4)]))


@line("DataLoader workers by fork")
def fork(op):
    with warnings.catch_warnings():
        # Python warns that a fork has one thread only; that it works is the check.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded(op, "fork")


@line("DataLoader workers by spawn")
def spawn(op):
    loaded(op, "spawn")


@line("mixed dtypes refused, the argument named")
def mixed(op):
    x, offset, *rest = arguments()
    try:
        op(x, offset.float(), *rest)
    except (TypeError, ValueError) as error:
        assert "offset" in str(error), error
    except RuntimeError as error:  # torchvision's type; its own text names no argument
        if "offset is float32 and x is float64" not in str(error):
            raise
    else:
        raise AssertionError("accepted")


@line("torch.jit.script")
def script(op):
    f = op.func if isinstance(op, partial) else torchvision.ops.deform_conv2d
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(f)
    tensors = arguments()
    same(scripted(*tensors[:3], padding=(1, 1)), f(*tensors[:3], padding=(1, 1)))


@line("torch.onnx.export to standard nodes")
def onnx(op):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Layer(op).eval(), arguments()[:1], dynamo=True, verbose=False,
            opset_version=22,
        )  # fmt: skip
    nodes = [(n.domain, n.op_type) for n in program.model_proto.graph.node]
    assert nodes == [("", "Conv"), ("", "DeformConv")]


OTHERS = {"torch.onnx.export to standard nodes"}  # test_torch_onnx.py has the tests


# --- What happened -------------------------------------------------------------------

OPERATORS = {
    "refdcn": refdcn_op,
    "torchvision": torchvision_op,
    "accelerated": torchvision_op,
}


# Whether torch sees that the kernel is another depends on what it traced before.
AS_TORCHVISION = {"torch.compile of torch.func.jvp"}


@cache
def outcome(name, operator):
    """What happened: yes, wrong or no, and the error."""
    if operator == "accelerated" and name in AS_TORCHVISION:
        return outcome(name, "torchvision")
    with warnings.catch_warnings():
        if operator != "refdcn":  # its warnings are not ours to judge
            warnings.simplefilter("ignore")
        for message in TORCHS_OWN:
            warnings.filterwarnings("ignore", message)
        if operator == "accelerated":
            with accelerate_torchvision():
                return attempt(name, operator)
        assert operator == "refdcn" or torchvision_is_native(), "it was replaced"
        return attempt(name, operator)


def attempt(name, operator):
    try:
        CHECKS[name](OPERATORS[operator])
    except AssertionError as error:
        return "wrong", error
    except Exception as error:
        return "no", error
    return "yes", None


# --- What it costs -------------------------------------------------------------------

COSTS = {
    "first derivatives, all five": lambda: backward(refdcn_op, arguments(grad=True)),
    "second derivatives (double backward)": lambda: twice(),
    "forward mode (torch.autograd.forward_ad)": lambda: func.jvp(
        refdcn_op, arguments(), arguments()
    ),
    "torch.func.grad, vjp": lambda: func.grad(squares(refdcn_op))(*arguments()),
    "torch.func.jacrev, jacfwd": lambda: func.jacrev(refdcn_op, EVERY)(*tiny()),
    "torch.func.hessian": lambda: func.hessian(squares(refdcn_op), 1)(*tiny()),
    "torch.func.vmap over images": lambda: func.vmap(refdcn_op, IMAGES)(
        *batches(IMAGES)[0]
    ),
    "torch.func.vmap over weights": lambda: func.vmap(refdcn_op, WEIGHTS)(
        *batches(WEIGHTS)[0]
    ),
    "vmap(grad): a gradient for each image": lambda: func.vmap(
        func.grad(squares(refdcn_op), argnums=EVERY), IMAGES
    )(*batches(IMAGES)[0]),
}


def twice():
    tensors = arguments(grad=True)
    y = refdcn_op(*tensors).square().sum()
    grads = torch.autograd.grad(y, tensors, create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in grads), tensors)


@cache
def cost(name):
    """Calls of the forward and of the backward kernel."""
    if name not in COSTS:
        return ""
    with (
        warnings.catch_warnings(),
        mock.patch.object(refdcn.cpu, "forward", wraps=refdcn.cpu.forward) as F,
        mock.patch.object(refdcn.cpu, "backward", wraps=refdcn.cpu.backward) as B,
    ):
        for message in TORCHS_OWN:
            warnings.filterwarnings("ignore", message)
        COSTS[name]()
    parts = ((F.call_count, "F"), (B.call_count, "B"))
    return " + ".join(f"{n if n > 1 else ''}{k}" for n, k in parts if n)


WORDS = {"yes": "yes", "no": "no: {}", "wrong": "**wrong, in silence**"}


def table():
    """The lines of the page."""
    columns = ("refdcn", "torchvision", "accelerated")
    release = torchvision.__version__.split("+")[0]
    yield f"| | refdcn | cost | torchvision {release} | accelerated |"
    yield "|---|---|---|---|---|"
    for name in CHECKS:
        found = [outcome(name, operator) for operator in columns]
        cells = [
            WORDS[verdict].format(type(error).__name__) for verdict, error in found
        ]
        cells.insert(1, cost(name))
        yield f"| {name} | " + " | ".join(cells) + " |"


def page(text):
    """`text` with the table made anew."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return "\n".join([f"{before}{BEGIN}", *table(), f"{END}{after}"])


def told(name):
    """What happened to refdcn's operator, and the error in words."""
    verdict, error = outcome(name, "refdcn")
    return verdict, "".join(traceback.format_exception(error)) if error else ""


if __name__ == "__main__":
    warnings.simplefilter("error")  # as in the tests
    text = page(PAGE.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    elif sys.argv[1:] == ["--json"]:
        json.dump({"page": text} | {name: told(name) for name in CHECKS}, sys.stdout)
    else:
        PAGE.write_text(text, encoding="utf-8")
