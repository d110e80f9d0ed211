"""Grades the implementations that others ship, each in an environment of its own.

    python docs/peers/make.py              the table, from what was graded before
    python docs/peers/make.py ncnn tvm     grade these anew: install, grade, remove

An environment is made below --environments with the Python that the packages want, and
removed afterwards unless --keep. `results/NAME.json` holds what of a report the table
needs. Every row is `refdcn grade` with the options below, and can be repeated alone.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
DTYPES = "float64", "float32", "float16"


class Peer(NamedTuple):
    """How one implementation is installed and graded."""

    name: str
    packages: str  # for pip; the first is the one whose version is told
    spec: str  # beside --as or --array torch; a file of adapters/ by its name
    options: str
    python: str = "3.12"


TORCH = "torch==2.14.1 torchvision==0.29.1"
PEERS = {
    "torchvision": Peer(
        "torchvision", f"torchvision {TORCH}", "torchvision.ops:deform_conv2d",
        "--as torchvision",
    ),
    "onnxruntime": Peer(
        "ONNX Runtime", "onnxruntime onnx", "onnx:DeformConv",
        "--runtime onnxruntime",
    ),
    "torch_onnx": Peer(
        "torch.onnx of torchvision", f"{TORCH} onnx onnxscript onnxruntime",
        "torch_onnx.py:f", "--dtype float32 --budget 300",
    ),
    "onnx": Peer(
        "ONNX reference", "onnx",
        "onnx.reference.ops.op_deform_conv:_deform_conv_implementation",
        "--as onnx --timeout 300",
    ),
    "openvino": Peer(
        "OpenVINO", "openvino", "openvino.opset8:deformable_convolution",
        "--as openvino",
    ),
    "paddle": Peer(
        "Paddle", "paddlepaddle", "paddle.vision.ops:deform_conv2d", "--as paddle"
    ),
    "ncnn": Peer("ncnn", "ncnn", "ncnn:Net", "--as ncnn"),
    "mindspore": Peer(
        "MindSpore", "mindspore", "mindspore.ops:deformable_conv2d", "--as mindspore",
        "3.10",
    ),
    "chainer": Peer(
        "Chainer", "chainer numpy==1.23.* setuptools",
        "chainer.functions:deformable_convolution_2d_sampler", "--as chainer", "3.8",
    ),
    "nnabla": Peer(
        "NNabla", "nnabla", "nnabla.functions:deformable_convolution", "--as nnabla",
        "3.10",
    ),
    "mxnet": Peer(
        "MXNet, modulated", "mxnet numpy==1.23.*", "mxnet_nd.py:modulated",
        "--gap 'mask == none' --gap 'dtype == float16'", "3.8",
    ),
    "mxnet_plain": Peer(
        "MXNet, no mask", "mxnet numpy==1.23.*", "mxnet_nd.py:plain",
        "--gap 'mask == given' --gap 'dtype == float16'", "3.8",
    ),
    "megengine": Peer(
        "MegEngine", "megengine", "megengine_functional.py:f",
        "--gap 'offset_groups > 1' --dtype float32", "3.8",
    ),
    "tvm": Peer(
        "TVM topi", "apache-tvm scipy", "tvm_topi.py:f",
        "--gap 'groups > 1' --gap 'mask == given' --budget 300 --dtype float32",
    ),
    "kornia": Peer(
        "Kornia", f"kornia {TORCH}",
        "kornia.feature.aliked.deform_conv2d:deform_conv2d", "--as kornia",
    ),
    "deformops": Peer(
        "deformops, eager", f"deformops {TORCH}", "deformops_eager.py:f",
        "--array torch",
    ),
    "tvdcn": Peer(
        "tvdcn", "tvdcn numpy", "tvdcn_torch.py:f",
        "--array torch",
    ),
}  # fmt: skip


def interpreter(version: str) -> str:
    """A Python of that version."""
    found = shutil.which(f"python{version}")
    homes = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if found is None and not homes:
        raise SystemExit(f"no Python {version} here")
    return found or str(homes[-1])


def installed(peer: Peer, folder: Path) -> Path:
    """The Python of an environment with its packages."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter(peer.python), "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q", *peer.packages.split()]
        subprocess.run(pip, check=True)
    return python


def version(peer: Peer, python: Path) -> str:
    """Of its first package."""
    name = re.split("[=<>]", peer.packages.split()[0])[0]
    code = f"from importlib.metadata import version; print(version({name!r}))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return told.stdout.strip()


def graded(peer: Peer, python: Path) -> dict:
    """What the table needs of its report."""
    place, _, function = peer.spec.rpartition(":")
    path = HERE / "adapters" / place
    spec = f"{path}:{function}" if path.exists() else peer.spec
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "refdcn", "grade", spec, "--seed", "3"]
        command += ["--python", python, "--json", report]
        command += [w.strip("'") for w in re.findall(r"'[^']*'|\S+", peer.options)]
        subprocess.run(command)
        return facts(json.loads(report.read_text()))


def not_reproduced(name: str, python: Path) -> list[str]:
    """Titles of the reports in docs/findings/NAME.md that do not happen there."""
    page = HERE.parent / "findings" / f"{name}.md"
    text = page.read_text() if page.exists() else ""
    found = r"^## (.*?)$.*?^```python\n(.*?)^```\n\n^```text\n(.*?)^```$"
    lost = []
    for title, code, told in re.findall(found, text, re.MULTILINE | re.DOTALL):
        run = subprocess.run([python, "-c", code], capture_output=True, text=True)
        out = run.stdout
        if run.returncode < 0:
            out += f"killed by {signal.Signals(-run.returncode).name}\n"
        lost += [title] * (not set(told.splitlines()) <= set(out.splitlines()))
    return lost


# What of a report is told ------------------------------------------------------------


def facts(report: dict) -> dict:
    """The behaviours, each a short text."""
    findings = report["findings"]
    y = [f for f in findings if f["target"] == "y" and f["group"] != "hostile"]
    computed = [d for d in DTYPES if any(f["dtype"] == d and f["values"] for f in y)]
    return {
        "verdict": report["verdict"],
        "sentence": report["sentence"].replace(report["candidate"], "it"),
        "dtypes": [f"{d}: {largest(y, d)}" for d in computed],
        "gradients": gradients(findings),
        "slope at -1": chosen(findings, "slope at -1"),
        "refused": counted(findings, "unsupported", "malformed"),
        "NaN offset": at(findings, ("dy nan", "dx nan")),
        "infinite offset": at(findings, ("dy inf", "dy -inf", "dx inf")),
        "1e30": at(findings, ("dy 1e+30", "dy -1e+30")),
        "NaN pixel, weight 0": at(findings, ("pixel nan",)),
        "stride 0": at(findings, ("a stride of 0",)),
        "wrong shapes": shapes(findings),
    }


def bad(found: list) -> list:
    """Those whose numbers are not right."""
    return [f for f in found if f["verdict"] in ("wrong", "imprecise")]


def largest(found: list, dtype: str) -> str:
    """The largest error in units of the bound; or how many are outside of it."""
    mine = [f for f in found if f["dtype"] == dtype and f["values"]]
    ratio = max(f["ratio"] for f in mine)
    wrong = sum(f["verdict"] == "wrong" for f in mine)
    if wrong:
        return f"{wrong} of {len(mine)} calls wrong"
    return "imprecise" if bad(mine) else f"{ratio:.2f}"


def gradients(findings: list) -> str:
    """Whether there are, and how near."""
    found = [f for f in findings if f["target"].startswith("grad_")]
    found = [f for f in found if f["group"] != "hostile" and f["values"]]
    found = [f for f in found if f["dtype"] == "float32"]
    if not found:
        return "none"
    names = sorted({f["target"] for f in bad(found)})
    ratio = max(f["ratio"] for f in found)
    return f"wrong: {', '.join(names)}" if names else f"{ratio:.2f}"


def chosen(findings: list, name: str) -> str:
    """A choice that it takes."""
    rows = [f for f in findings if f["kind"] in ("slope", "right") and "choice" in f]
    taken = {f["choice"][name] for f in rows if name in f["choice"]}
    return ", ".join(sorted(taken))


def counted(findings: list, verdict: str, *without: str) -> str:
    """How many calls have a verdict, and the first text."""
    rows = [f for f in findings if f["group"] not in without]
    bad = [f for f in rows if f["verdict"] == verdict and not f.get("declared")]
    return f"{len(bad)} of {len(rows)}" if bad else ""


def at(findings: list, notes: tuple) -> str:
    """What comes of an input that is not finite, in y and in the gradients."""
    ways = {}
    for f in findings:
        if noted(f) in notes and f["group"] == "hostile" and f["dtype"] == "float32":
            ways.setdefault(side(f), set()).add(way(f))
    told = [f"{where}{' or '.join(sorted(w))}" for where, w in ways.items()]
    return "; ".join(told)


def side(finding: dict) -> str:
    return "gradients: " if finding["target"].startswith("grad") else ""


def way(finding: dict) -> str:
    """One result in a word or two."""
    if finding["kind"] in ("died", "died once"):
        return finding["detail"].removeprefix("killed by ").partition("\n")[0]
    if finding["kind"] == "not finite":
        values = [*finding.get("choice", {}).values(), "NaN"]
        return {"0": "0", "NaN": "NaN"}.get(values[0], values[0])
    if finding["kind"] == "error":
        return finding["detail"].partition(":")[0]
    kinds = {"right": "0", "values": "other values", "refused": "refused"}
    return kinds.get(finding["kind"], finding["kind"])


def shapes(findings: list) -> str:
    """Those that are computed in silence."""
    rows = [f for f in findings if f["group"] == "malformed"]
    rows = [f for f in rows if f["dtype"] == "float32" and f["kind"] != "refused"]
    return "; ".join(noted(f) for f in rows) or "refused"


def noted(finding: dict) -> str:
    """What a case is about."""
    return finding["case"].rpartition("(")[2].rstrip(")")


# The table ---------------------------------------------------------------------------


ROWS = (
    "dtypes", "gradients", "slope at -1", "refused", "NaN offset", "infinite offset",
    "1e30", "NaN pixel, weight 0", "stride 0", "wrong shapes", "verdict",
)  # fmt: skip


def table() -> str:
    """Implementation by behaviour."""
    lines = [
        "| implementation | " + " | ".join(ROWS) + " |",
        "|---" * (len(ROWS) + 1) + "|",
    ]
    for name, peer in PEERS.items():
        path = HERE / "results" / f"{name}.json"
        if not path.exists():
            continue
        told = json.loads(path.read_text())
        cells = [f"{peer.name} {told['version']}"]
        for row in ROWS:
            value = told[row]
            cells.append("<br>".join(value) if isinstance(value, list) else value)
        lines.append("| " + " | ".join(cell or "-" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *PEERS], metavar="NAME")
    parser.add_argument("--environments", type=Path, default=Path("build/peers"))
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument("--install", action="store_true", help="make them, no more")
    options = parser.parse_args()
    for name in options.names:
        peer, folder = PEERS[name], options.environments.absolute() / f"peer-{name}"
        python = installed(peer, folder)
        if options.install:
            continue
        told = {"version": version(peer, python), **graded(peer, python)}
        text = json.dumps(told, indent=1) + "\n"
        (HERE / "results" / f"{name}.json").write_text(text)
        for title in not_reproduced(name, python):
            print(f"docs/findings/{name}.md: not reproduced: {title}")
        if not options.keep:
            shutil.rmtree(folder)
    if not options.install:
        (HERE / "table.inc").write_text(table())


if __name__ == "__main__":
    main()
