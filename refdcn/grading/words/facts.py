"""One fact of a diagnosis in words: as evidence, and as briefly as a cause is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import floor, log2
from typing import Any

from refdcn.grading.diagnosis.facts import Fact

AXIS_NAMES = {
    "n": "image",
    "o": "output channel",
    "c": "input channel",
    "oh": "output row",
    "ow": "output column",
}
PLURALS = {"offset": "offsets", "mask": "masks", "weight": "weights", "bias": "biases"}


def number(value: float) -> str:
    """A ratio of small whole numbers where it is one, else four digits."""
    if not abs(value) < float("inf"):
        return str(value)
    near = Fraction(value).limit_denominator(64)
    return str(near) if abs(float(near) - value) < 1e-6 else f"{value:.4g}"


def added_text(f: Fact) -> str:
    """What the error depends on."""
    along = names_text(f.measured["along"])
    return f"what is added to {f.subject} depends on {along} alone"


def step_size(value: float) -> str:
    """1/8 and the like."""
    n = round(1 / value) if value < 1 else 0
    return f"1/{n}" if n and abs(n * value - 1) < 0.02 else f"{value:.3g}"


def element_text(name: str, at: Sequence[int]) -> str:
    """One element."""
    return f"{name}[{', '.join(map(str, at))}]"


def names_text(names: Sequence[str]) -> str:
    """A list in words."""
    return " and ".join(names)


# Positions -----------------------------------------------------------------------


def formula(terms: Mapping[str, float]) -> str:
    """An affine function of oh, ow, i and j."""
    order = [t for t in ("1", "oh", "ow", "i", "j") if t in terms]
    said = [f"{terms[t]:+.3g} {'' if t == '1' else t}".strip() for t in order]
    return " ".join(said) or "0"


def taps_text(f: Fact) -> str:
    """Where taps lie."""
    name, d = f.subject, f.defined
    axis, tap = ("oh", "i") if name == "row" else ("ow", "j")
    says = f"{d[axis]} {axis} - {-d['1']} + {d[tap]} {tap}"
    windows = ", ".join(f"({a}, {b})" for a, b in f.where["windows"])
    kernel = "x".join(map(str, f.where["kernel"]))
    call = f"(stride, padding, dilation {windows}, {kernel} taps)"
    if not f.measured["affine"]:
        return f"the {name}s of taps are no affine function of oh, ow, i, j {call}"
    fit = {k: v for k, v in f.measured.items() if k in ("1", "oh", "ow", "i", "j")}
    return (
        f"the {name} of tap (i, j) is {formula(fit)}; the definition is {says} {call}"
    )


def taps_briefly(f: Fact) -> str:
    """Which window parameter acts as another, if that is all."""
    if not f.measured["affine"]:
        return f"{f.subject}s of taps lie elsewhere"
    axis, tap = ("oh", "i") if f.subject == "row" else ("ow", "j")
    names = {axis: "stride", tap: "dilation", "1": "padding"}
    said = []
    for term in ("1", "oh", "ow", "i", "j"):
        got, want = f.measured.get(term, 0), f.defined.get(term, 0)
        if abs(got - want) < 1e-3:
            continue
        if term not in names:
            said.append(f"{f.subject}s follow {term}")
        elif term == "1":
            said.append(f"{f.subject}s are shifted by {number(got - want)}{at(f)}")
        else:
            acts = f"acts as {number(got)}, not {want}"
            said.append(f"the {names[term]} of {f.subject}s {acts}")
    return names_text(said) if len(said) < 3 else taps_text(f).split(" (stride")[0]


def at(f: Fact) -> str:
    """The windows of the call in which it was seen: others may shift otherwise."""
    stride, padding, dilation = (w[f.subject != "row"] for w in f.where["windows"])
    windows = f" at stride {stride}, padding {padding} and dilation {dilation}"
    if not f.where.get("right kernels"):
        return windows
    kernel, right = "x".join(map(str, f.where["kernel"])), f.where["right kernels"]
    others = f"{names_text(right)} {'is' if len(right) == 1 else 'are'} right"
    return f"{windows} of a {kernel} kernel ({others})"


# Which element is read -----------------------------------------------------------


def axis_name(axis: str, subject: str) -> str:
    """An axis in words."""
    return "channel" if (axis, subject) == ("c", "x") else AXIS_NAMES.get(axis, axis)


def read_from_text(f: Fact) -> str:
    """The map of indices, axis by axis, with an example."""
    said = []
    for axis, how in f.measured["along"].items():
        name = axis_name(axis, f.subject)
        if "always" in how:
            said.append(f"{name} is always {how['always']}")
        else:
            of, is_ = (", ".join(map(str, how[k])) for k in ("of", "is"))
            said.append(f"{name} {of} is read as {is_}")
    known = "; ".join(said) or "in no simple order"
    if "layout" in f.measured:
        known = f"{layout_text(f)}; {known}" if said else layout_text(f)
    one = f.measured["example"]
    pair = f"{tuple(one['defined'])} reads {tuple(one['read'])}"
    order = ", ".join(axis_name(axis, f.subject) for axis in f.defined)
    return f"{f.subject} is read from other elements: {known} (as {order}: {pair})"


def groups_read_text(f: Fact) -> str:
    """Which outputs read another weight group's channels, and the whole map."""
    wrong, found = f.measured["outputs"], f.measured["groups"]
    due, last = ", ".join(map(str, f.defined)), len(found) - 1
    if all(groups == [*range(max(f.defined) + 1)] for groups in found):
        return "groups are ignored: every output channel reads the channels of all"
    read = ", ".join(" and ".join(map(str, groups)) or "none" for groups in found)
    outputs = ", ".join(map(str, wrong))
    return (
        f"output channels {outputs} read the channels of other groups: outputs 0 to "
        f"{last} read groups {read}; the definition reads {due}"
    )


def layout_text(f: Fact) -> str:
    """The order in which channels are counted."""
    order, turned = f.measured["layout"], f.measured["x first"]
    names = {"tap": "tap", "offset group": "group", "axis": "axis"}
    said = ", ".join(names[n] for n in order)
    pair = ("x", "y") if turned else ("y", "x")
    if order == ["offset group", "axis", "tap"]:
        return f"offsets are read as all {pair[0]} then all {pair[1]} of a group"
    if order == ["axis", "offset group", "tap"]:
        return f"offsets are read as all {pair[0]}, then all {pair[1]}"
    if order == ["offset group", "tap", "axis"]:
        return f"offsets are read as ({pair[0]}, {pair[1]})"
    return f"{f.subject} channels are read as ({said})"


def read_from_briefly(f: Fact) -> str:
    """Whose element is taken."""
    if f.measured.get("layout") == ["offset group", "tap", "axis"]:
        return f"{layout_text(f)}; the definition is (y, x)"
    if "layout" in f.measured:
        must = "interleaves (y, x) tap by tap"
        if f.subject == "mask":
            must = "is (group, tap)"
        return f"{layout_text(f)}; the definition {must}"
    said = []
    for axis, how in f.measured["along"].items():
        name = axis_name(axis, f.subject)
        if "always" in how:
            one = how["always"]
            last = f", the last of {one + 1}" if 0 < one == how["of"] - 1 else ""
            said.append(f"every {name} uses the {f.subject} of {name} {one}{last}")
        else:
            of, is_ = (", ".join(map(str, how[k][:SHOWN])) for k in ("of", "is"))
            whose = f"the {f.subject} of {name}s {is_}"
            said.append(f"{name}s {of} read {whose}" + more(how["of"]))
    return "; ".join(said[:2]) or f"{f.subject} is read from other elements"


SHOWN = 5  # indices, or pairs of values, in a first sentence


def more(values: Sequence[object]) -> str:
    """That a list was cut."""
    return ", ..." if len(values) > SHOWN else ""


def acts_as_text(f: Fact) -> str:
    """How an input acts."""
    text, m = response_text(f), f.measured
    if "up to" in f.where and f.where["up to"] > 12:
        text = f"far offsets are not kept: {text}"
    if "pairs" in m:
        sep = "m = " if f.subject == "mask" else ""
        verb = "acts as" if f.subject == "mask" else "as"
        pairs = ", ".join(f"{sep}{a:.3g} {verb} {b:.3g}" for a, b in m["pairs"])
        text += f": {pairs}"
    return text + part_text(f)


def response_text(f: Fact) -> str:
    """The function, if it is one."""
    m, name = f.measured, f.subject
    if "nan" in m:
        lost = f"{m['nan']} of {m['of']} places"
        return f"what {name} does cannot be told at {lost}: nothing, or NaN, is read"
    if "limits" in m:
        low, high = m["limits"]
        return f"{name} is clipped to [{low:.4g}, {high:.4g}]"
    if "pairs" in m:
        if name == "mask":
            return "the mask's effect is not m"
        return f"{name} acts as another function, or others enter"
    if m["scale"] == 0:
        return f"{name} has no effect: any value acts as {m['shift']:.4g}"
    shift = f" {m['shift']:+.4g}" if m["shift"] else ""
    return f"{name} of v acts as {m['scale']:.4g} v{shift}"


def part_text(f: Fact) -> str:
    """The part of the input to which it is limited."""
    if "axis" not in f.where:
        return ""
    axis, values = f.where["axis"], f.where["values"]
    name = AXIS_NAMES.get(axis, axis)
    last = ", the last" if values == [f.where["of"] - 1] else ""
    if len(values) == 1:
        return f" in {name} {values[0]}{last}"
    if values == list(range(values[0], f.where["of"])):
        return f" from {name} {values[0]} on"
    return f" where {name} is {' or '.join(map(str, values[:4]))}"


def acts_briefly(f: Fact) -> str:
    """Ignored, scaled, shifted or clipped."""
    m, where = f.measured, part_text(f)
    name = f.subject if f.subject in ("dy", "dx", "x") else f"the {f.subject}"
    if m.get("scale") == 0 and m["shift"] in (0, 1):
        neutral = 1 if f.subject == "mask" else 0
        return f"{name} is {'ignored' if m['shift'] == neutral else 'lost'}{where}"
    if m.get("shift") == 0:
        return f"{name} is multiplied by {number(m['scale'])}{where}"
    if m.get("scale") == 1:
        return f"{name} is shifted by {number(m['shift'])}{where}"
    if "limits" in m:
        return response_text(f) + where
    pairs = ", ".join(f"{a:.3g} as {b:.3g}" for a, b in m.get("pairs", [])[:3])
    if f.subject == "mask" and pairs:
        return f"the mask is not applied as it is{where}: {pairs}"
    return f"{response_text(f)}{where}: {pairs}" if pairs else response_text(f) + where


# How pixels are weighted ---------------------------------------------------------


def pixels_text(weights: Mapping[str, float]) -> str:
    """The pixels that carry weight."""
    if weights and all(w != w for w in weights.values()):
        return "NaN"
    parts = [f"{w:.3g} x[{r}]" for r, w in weights.items()]
    return " + ".join(parts) or "nothing"


def region_texts(f: Fact) -> list[str]:
    """What is read in each region, and what the definition reads."""
    n, name = f.where["size"], f.subject
    names = {
        "far outside": f"far outside (q < -1 or q > {n})",
        "before the first": "between -1 and 0",
        "inside": "inside",
        "after the last": f"between {n - 1} and {n}",
    }
    return [
        f"{names[key]}: {name} {one['at']:g} of {n} reads {pixels_text(one['reads'])}; "
        f"the definition reads {pixels_text(f.defined[key])}"
        for key, one in f.measured.items()
    ]


def interpolation_text(f: Fact) -> str:
    """Every region that is wrong."""
    return in_gradient(f) + "; ".join(region_texts(f))


def interpolation_briefly(f: Fact) -> str:
    """The region in which most is wrong, and that there are others."""
    shares = [one["share"] for one in f.measured.values()]
    said = region_texts(f)
    first = said[shares.index(max(shares))]
    return in_gradient(f) + first + (" (and elsewhere)" if said[1:] else "")


def in_gradient(f: Fact) -> str:
    """Which result's weights they are."""
    target = f.where["target"]
    return "" if target == "y" else f"in the gradient of {target[5:]}, "


# Far and late --------------------------------------------------------------------


def far_line_text(f: Fact) -> str:
    """From where on a long line is wrong."""
    m = f.measured
    at = m["at"] if isinstance(m["at"], str) else f"{m['at']:g}"
    limits = f"from {m['from']} on (right up to {m['right up to']})"
    must = f"{at} where it must be {f.defined}"
    return f"the {f.subject} of a sample is wrong {limits}: {must}"


def slab_text(f: Fact) -> str:
    """What the outputs of a tile can read."""
    m, line = f.measured, f.subject
    first, last = m["outputs"]
    low, high = m["lines"]
    return (
        f"outputs in tiles of {m['size']} {line}s read a part of the image alone: "
        f"those of {line}s {first} to {last} its {line}s {low} to {high}; samples "
        "beyond it are lost"
    )


def late_pixels_text(f: Fact) -> str:
    """From which pixel on."""
    H, W = f.where["image"]
    m = f.measured
    limits = f"on (right up to {m['right up to']})"
    return f"samples are wrong from pixel {m['from']} of an image of {H}x{W} {limits}"


def late_address_text(f: Fact) -> str:
    """From which number on."""
    m = f.measured
    reads = f"{m['reads']:.0f}" if abs(m["reads"]) < float("inf") else "none"
    pair = f"number {m['from']} is read as {reads}"
    return f"numbers of x are read from other addresses from {limit_text(m)} on: {pair}"


def late_briefly(f: Fact) -> str:
    """The index that is too short, where it is one."""
    m = f.measured
    low, high = m["right up to"], m["from"]
    bits = next((b for b in INDEX_BITS if low < 2**b <= high), None)
    if bits is None and f.kind == "late pixels":
        low, high = (framed(at, f.where["image"]) for at in (low, high))
        bits = next((b for b in INDEX_BITS if low[0] < 2**b <= high[1]), None)
        what = "a pixel's index in a plane with a frame of zeros"
        if bits is not None:
            return f"{what} has {kind_of(bits)}: beyond {2**bits:,} others are read"
    if bits is None:
        return fact_text(f)
    what = (
        "a pixel's index in its plane" if f.kind == "late pixels" else "addresses in x"
    )
    have = "has" if f.kind == "late pixels" else "have"
    have = f"{have} {kind_of(bits)}"
    return f"{what} {have}: from {2**bits:,} on other pixels are read"


INDEX_BITS = 15, 16
FRAMES = 1, 4  # pixels by which a frame can move a line, and make one longer


def kind_of(bits: int) -> str:
    """The integer that holds so many bits."""
    return "16 bits" if bits == 16 else "16 bits with a sign"


def framed(at: int, image: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest index of a pixel in a plane with a frame."""
    row, column = divmod(at, image[1])
    found = [(row + k) * (image[1] + 2 * k) + column + k for k in FRAMES]
    return found[0], found[1]


def limit_text(measured: Mapping[str, Any]) -> str:
    """A limit between two numbers."""
    return f"{measured['from']} (right up to {measured['right up to']})"


# What came instead ---------------------------------------------------------------


VALUES = {"nan": "NaN", "infinite": "not finite", "bias": "the bias alone"}


def value_said(value: str | float) -> str:
    """One that has a name, or a number."""
    return VALUES[value] if isinstance(value, str) else f"{value + 0.0:g}"


def values_text(f: Fact) -> str:
    """One value wherever it is wrong."""
    said = value_said(f.measured["value"])
    if "count" in f.measured:
        share = f"{f.measured['count']} of {f.measured['of']} places"
        return f"{f.subject} is {said} at {share}, else right"
    return f"each wrong value of {f.subject} is {said}"


def values_briefly(f: Fact) -> str:
    """The value where it is wrong."""
    said = value_said(f.measured["value"])
    return f"{f.subject} is {said} wherever it is wrong"


def multiple_text(f: Fact) -> str:
    """A factor."""
    times = f"{f.measured['times']:.4g} times the right one"
    return f"each wrong value of {f.subject} is {times}"


def factor_text(f: Fact) -> str:
    """A factor that is one of the inputs."""
    m = f.measured
    verb = {-1: "lacks a factor of", 1: "has an extra factor of"}
    said = verb.get(m["power"], f"has an extra power {m['power']} of")
    times = "" if abs(m["times"] - 1) < 1e-3 else f" (times {m['times']:.3g})"
    name = m["factor"].replace("sign of mask", "mask's sign")
    return f"{f.subject} {said} the {name}{times}"


def moved_text(f: Fact) -> str:
    """The right values one step further."""
    axis, by = f.measured["along"], f.measured["by"]
    sign = f"{axis} {'+' if by > 0 else '-'} {abs(by)}"
    return f"each wrong value of {f.subject} at {axis} is the right value at {sign}"


def exchanged_values_text(f: Fact) -> str:
    """The right values of other elements."""
    m = f.measured
    along = ""
    if "along" in m:
        differ = "differ" if len(m["along"]) > 1 else "differs"
        along = f" (only {names_text(m['along'])} {differ})"
    one, other = (
        element_text(f.subject, m["at"]),
        element_text(f.subject, m["is that of"]),
    )
    head = f"each wrong value of {f.subject} is the right one of another element"
    return f"{head}{along}: {one} has that of {other}"


def differs_text(f: Fact) -> str:
    """That it differs, and how like the right one it is."""
    m = f.measured
    like = f"its projection on the right one is {m['projection']:.3g}"
    return f"{f.subject} differs at {m['count']} of {m['of']} places ({like})"


def bias_added_text(f: Fact) -> str:
    """How often the bias is added."""
    times = ", ".join(f"{t:.0f}" for t in f.measured["times"])
    return f"the bias is added another number of times: {times}, not once"


def steps_text(f: Fact) -> str:
    """A fixed step of rows and columns alike."""
    first = next(s for s in f.measured["at"].values() if s)
    if abs(first - 1) < 1e-3:
        return "the nearest pixel is read: positions move in steps of 1 pixel"
    return f"positions move in steps of {step_size(first)} pixel, wherever they are"


def step_text(f: Fact) -> str:
    """The steps in which positions move along one axis."""
    at = [(r, s) for r, s in f.measured["at"].items() if s]
    if f.measured["fixed"]:
        return f"{f.subject} {steps_text(f)}"
    ends = dict([*at[:1], *at[-1:]])
    said = ", ".join(f"{step_size(s)} at {r}" for r, s in ends.items())
    kept = format_of(f) or "a floating point of fewer bits"
    return f"{f.subject} positions are in {kept}: steps of {said}"


FORMATS = {10: "float16", 7: "bfloat16", 23: "float32"}  # by bits of fraction


def format_of(f: Fact) -> str:
    """The format whose numbers lie as far apart as positions do; or none."""
    at = [(r, s) for r, s in f.measured["at"].items() if s]
    bits = {round(floor(log2(r)) - log2(s), 1) for r, s in at}
    return FORMATS.get(int(bits.pop()), "") if len(bits) == 1 else ""


# Reads and relations -------------------------------------------------------------


def reads_text(f: Fact) -> str:
    """An element that is read or not."""
    m = f.measured
    y, element = element_text("y", m["output"]), element_text(f.subject, m["element"])
    if m["how"] == "none":
        return f"no output reads {element}; {y} must"
    does, must = (
        ("reads", "does not read")
        if m["how"] == "extra"
        else (
            "does not read",
            "reads",
        )
    )
    outputs = f"({m['outputs']} outputs in all)"
    return f"{y} {does} {element}, which the definition {must} there {outputs}"


RELATIONS = {
    "images reversed": "the images are put in reverse order",
    "output channels reversed": (
        "the output channels of a group are put in reverse order"
    ),
    "input channels reversed": "the input channels of a group are put in reverse order",
    "output rows reversed": (
        "the output rows are put in reverse order, samples and all"
    ),
    "output columns reversed": (
        "the output columns are put in reverse order, samples and all"
    ),
    "taps reversed": "the taps are put in reverse order, samples and all",
    "mask of ones": "a mask of ones becomes None",
    "bias of zeros": "a bias of zeros becomes None",
    "memory: channels last": "the arrays lie otherwise in memory (channels last)",
    "memory: every second column": (
        "the arrays lie otherwise in memory (every second column)"
    ),
    "groups as sparse weights": (
        "groups become one group whose weights between them are 0"
    ),
} | {
    f"{name} by offsets": f"the {name} grows by one and the offsets make up for it"
    for name in ("stride", "padding", "dilation")
}


def outputs_text(outputs: Mapping[str, Sequence[int]]) -> list[str]:
    """Outputs and where each differs first."""
    return [f"{name} (first at {tuple(at)})" for name, at in outputs.items()]


def relation_text(f: Fact) -> str:
    """What must follow, and does not."""
    which = outputs_text(f.measured)
    do = "does" if len(which) == 1 else "do"
    sizes = {k: v for k, v in f.where.items() if k != "inputs"}
    size = "".join(f", {k} = {v}" for k, v in sizes.items())
    size = f", at{size[1:]}" if size else ""
    said = f"{names_text(which[:2])} {do} not follow{size}"
    return f"when {RELATIONS[f.subject]}, {said}"


def relation_briefly(f: Fact) -> str:
    """What two calls that must agree differ in."""
    if f.subject.startswith("memory: "):
        how = f.subject.removeprefix("memory: ")
        wrong = names_text(list(f.measured)[:2])
        names = f.where.get("inputs", ())
        what, do = (names[0], "is") if len(names) == 1 else ("inputs", "are")
        what = names_text(names) if 0 < len(names) < 3 else what
        return f"{what} whose layout is not contiguous ({how}) {do} misread: {wrong}"
    return relation_text(f)


def batch_text(f: Fact) -> str:
    """Halves against the whole."""
    whole = f"one on the whole of {f.where['N']} images"
    which = names_text(outputs_text(f.measured))
    head = f"two calls on halves of the batch differ from {whole} in {which}"
    return f"{head}: images influence one another"


def degree_text(f: Fact) -> str:
    """The power with which an output follows."""
    m = f.measured
    act = "doubled" if m["factor"] == 2 else "negated"
    head = f"when {m['input']} is {act}, {m['output']}"
    must = "stay" if f.defined == 0 else f"be {act}"
    if "power" not in m:
        share = f"{m['count']} of {m['of']} values"
        return f"{head} does not follow at {share} (first at {tuple(m['first'])})"
    k = m["power"]
    does = {0: "stays as it is", 1: f"is {act}"}.get(k, f"grows by {m['factor'] ** k}")
    return f"{head} {does}; it must {must}"


def stencil_text(f: Fact) -> str:
    """What one element of grad_y reaches."""
    m = f.measured
    head = f"a single grad_y of 1 at {tuple(m['of'])} gives {f.subject}"
    first = f"(first at {tuple(m['at'])} as {', '.join(m['axes'])})"
    if m["how"] == "lost":
        return f"{head} = 0 at {m['count']} places where it must not be {first}"
    if m["how"] == "extra":
        return f"{head} at {m['count']} places that it must not reach {first}"
    at = f"{tuple(m['at'])} ({', '.join(m['axes'])})"
    return f"{head} = {m['value']:g} at {at}; the definition gives {f.defined:g}"


def enters_text(f: Fact) -> str:
    """Which elements of grad_y enter a gradient, and how often."""
    m = f.measured
    k = m["times"]
    does = (
        f"does not enter {f.subject}" if k == 0 else f"enters {f.subject} {k:g} times"
    )
    if "from" in m:
        return f"grad_y {does} from {m['along']} = {m['from']} on"
    if "to" in m:
        end = f"up to {m['along']} =" if m["to"] else f"at {m['along']} ="
        return f"grad_y {does} {end} {m['to']}"
    return f"{element_text('grad_y', m['at'])} {does}"


def sum_text(f: Fact) -> str:
    """Halves of grad_y do not add up."""
    m = f.measured
    fewer = "some are lost" if m["smaller"] > 0.5 else "they interfere"
    at = element_text(f.subject, m["at"])
    return (
        "two halves of grad_y do not give together the sum of what each gives alone: "
        f"{at} is {m['together']:g}, not {m['apart']:g}; {fewer}"
    )


def lost_text(f: Fact) -> str:
    """How many of the additions to one pixel remain."""
    m = f.measured
    kept = f"{f.defined} ones give {m['kept']:g}"
    return f"additions to {f.subject} are lost where several meet at one pixel: {kept}"


def kept_argument_text(f: Fact) -> str:
    """An argument of an earlier call."""
    same = {"shape": "shapes", "numbers": "numbers in another order"}
    by = f"an earlier call with the same {same[f.measured['by']]}"
    outputs = f.measured["in"]
    if outputs == ["y"]:
        return f"y takes the {f.subject} of {by}"
    return f"{', '.join(outputs)}: the {f.subject} is that of {by}"


def images_written_text(f: Fact) -> str:
    """Blocks of images that are written onto the first."""
    block, how = f.measured["block"], f.measured["how"]
    onto = f"image n mod {block}" if block > 1 else "image 0"
    step = f"blocks of {block} images" if block > 1 else "images"
    return (
        f"{f.subject} of image n is {how} that of {onto}: its pointer does not advance "
        f"by {step}"
    )


FRACTIONS = (
    "the fractions of y and x are exchanged in the neighbours' weights; whole pixels "
    "are not"
)

TEXTS: dict[str, Callable[[Fact], str]] = {
    "fractions exchanged": lambda _: FRACTIONS,
    "taps": taps_text,
    "read from": read_from_text,
    "groups read": groups_read_text,
    "acts as": acts_as_text,
    "interpolation": interpolation_text,
    "far line": far_line_text,
    "slab": slab_text,
    "late pixels": late_pixels_text,
    "late address": late_address_text,
    "values": values_text,
    "multiple": multiple_text,
    "factor": factor_text,
    "moved": moved_text,
    "exchanged values": exchanged_values_text,
    "differs": differs_text,
    "bias added": bias_added_text,
    "saturates": lambda f: (
        f"{f.subject} never exceeds {f.measured['at']:g} in size: it saturates"
    ),
    "nearly": lambda f: (
        f"each wrong value of {f.subject} is nearly right: about "
        f"{f.measured['bits']} bits of it are"
    ),
    "added": added_text,
    "step": step_text,
    "bits": lambda f: f"{f.subject} keeps {f.measured['bits']} of its {f.defined} bits",
    "reads": reads_text,
    "isolation": lambda f: (
        f"image {f.measured['from']} reaches image {f.measured['to']}: with NaN in the "
        f"first alone {f.measured['outputs']} outputs of the other are NaN"
    ),
    "relation": relation_text,
    "batch": batch_text,
    "degree": degree_text,
    "adjoint": lambda f: (
        f"<{f.subject[5:]}, {f.subject}> is {f.measured['product']:g}, <y, grad_y> is "
        f"{f.defined:g}: {f.subject} is not the transpose of the forward"
    ),
    "stencil": stencil_text,
    "enters": enters_text,
    "sum": sum_text,
    "lost additions": lost_text,
    "kept argument": kept_argument_text,
    "images written": images_written_text,
    "exchanged arguments": lambda f: (
        f"the gradients take grad_y for {f.subject} and {f.subject} for grad_y"
    ),
    "listed": lambda f: str(f.measured["text"]),
}
BRIEFLY: dict[str, Callable[[Fact], str]] = {
    "taps": taps_briefly,
    "read from": read_from_briefly,
    "acts as": acts_briefly,
    "interpolation": interpolation_briefly,
    "relation": relation_briefly,
    "values": values_briefly,
    "late pixels": late_briefly,
    "late address": late_briefly,
}

SOUND: dict[str, Callable[[str], str]] = {  # what a probe found to be as it must
    "taps": lambda name: f"the {name}s at which taps lie",
    "read from": lambda name: f"which elements of {name} are read",
    "reads": lambda name: f"which outputs follow an element of {name}",
    "acts as": lambda name: f"the effect of {name}",
    "reach": lambda name: f"the effect of a far {name}",
    "interpolation": lambda name: f"the weights of pixels along a {name}",
    "step": lambda _: "positions between pixels",
    "bits": lambda name: f"the bits that {name} keeps",
    "isolation": lambda _: "each image apart from the others",
    "batch": lambda _: "a batch as its halves give it",
    "relation": lambda name: f"what follows when {RELATIONS[name]}",
    "degree": lambda name: "how {} follows {}".format(*name.split(" of ")),
    "adjoint": lambda name: f"{name} as the transpose of the forward",
}


def sound_text(f: Fact) -> str:
    """What was measured, and found right."""
    return SOUND[f.kind](f.subject)


def fact_text(f: Fact) -> str:
    """The whole of a fact."""
    return TEXTS[f.kind](f)


def brief(f: Fact) -> str:
    """What it says of the cause."""
    return BRIEFLY.get(f.kind, fact_text)(f)
