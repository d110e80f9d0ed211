"""The command `refdcn`: grade, grade-many, compare, badge, vectors, demo, bench."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refdcn import get_include
from refdcn.bench.options import add_arguments as add_bench
from refdcn.demo.options import add_arguments as add_rotated_digits
from refdcn.gate.options import add_arguments as add_many
from refdcn.vectors.options import add_arguments as add_vectors

if TYPE_CHECKING:
    from refdcn.grading.report import Report

DTYPES = ("float64", "float32", "float16")
LEVELS = ("smoke", "full", "paranoid")
PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16")
GROUPS = (
    *("exact", "random", "sizes", "optional", "layout", "repeat", "malformed"),
    *("hostile", "sweeps"),
)
# With --self-test all other arguments must have their defaults; the last four are
# no arguments.
SELF_TEST = ("self_test", "seed", "level", "command", "run", "default", "progress")
UNREAD = 141  # as a shell reports that nobody reads the output
TIMED = 9  # calls, beside others
FLAGS = {
    "spec": "SPEC",
    "dtypes": "--dtype",
    "conventions": "--convention",
    "gaps": "--gap",
    "like": "--as",
    "companion": "--grad",
}
RUNTIMES = "onnxruntime", "reference", "openvino"
LIBRARIES = (
    *("refdcn", "torchvision", "onnx", "openvino", "paddle", "mindspore", "ncnn"),
    *("mmcv", "chainer", "nnabla", "kornia", "dcnv3", "dcnv4"),
)

EXIT_CODES = (
    "Exit code: 0 pass, 1 wrong (or imprecise for a declared precision), 2 usage, "
    "3 crash or timeout, 4 unsupported and not declared, or nothing computed, 5 "
    "integrity, 130 interrupted; the worst in the order crash, timeout, integrity, "
    "wrong, imprecise, unsupported, nothing counts, not the largest number. "
    "Conventions and declared gaps are named and exit with 0, and so do wrong "
    "shapes that are computed, but for --strict."
)


def parser() -> argparse.ArgumentParser:
    """What may be typed."""
    top = argparse.ArgumentParser(
        prog="refdcn", description="The reference of deformable convolution."
    )
    commands = top.add_subparsers(dest="command", required=True)
    add_grade(commands.add_parser("grade", help="grade an implementation"))
    add_showing(commands)
    many = commands.add_parser("grade-many", help="grade many, each with a score")
    add_many(many)
    add_asked(many)
    add_called(many)
    add_declarations(many)
    add_limits(many)
    add_timing(many)
    many.set_defaults(run=run_many)
    vectors = commands.add_parser("vectors", help="write cases with their answers")
    add_vectors(vectors)
    vectors.set_defaults(run=run_vectors)
    demo = commands.add_parser("demo", help="grade a right and a wrong kernel")
    demo.set_defaults(run=run_demo)
    experiments = demo.add_subparsers(title="an experiment", metavar="")
    add_rotated_digits(
        experiments.add_parser(
            "rotated-digits", help="deformable networks on randomly rotated digits"
        )
    )
    bench = commands.add_parser("bench", help="time the operator beside others")
    add_bench(bench)
    bench.set_defaults(run=run_bench)
    return top


def add_grade(grade: argparse.ArgumentParser) -> None:
    """The arguments of `refdcn grade`."""
    grade.epilog = EXIT_CODES
    grade.add_argument(
        "spec",
        metavar="SPEC",
        nargs="?",
        help="torchvision, module:function or path/to/file.py:function, called as "
        "f(x, offset, weight, mask, bias, stride=(..), padding=(..), dilation=(..)); "
        "or cabi:library.so:function (a kernel in C or the like, see --header), "
        "cmd:'./run {in} {out}' (a program in any language), onnx:MODEL.onnx, "
        "torch:namespace::name, kernelbench:FILE",
    )
    grade.add_argument(
        "--header",
        action="store_true",
        help="print the folder of refdcn.h, for a compiler's -I, and end",
    )
    grade.add_argument(
        "--self-test",
        action="store_true",
        help="grade every mistake of the catalogue, and correct implementations",
    )
    grade.add_argument(
        "--gate",
        action="store_true",
        help="hold it to the rules for programs that are rewarded for passing",
    )
    add_files(grade)
    add_asked(grade)
    add_called(grade)
    add_declarations(grade)
    add_limits(grade)
    add_timing(grade)
    grade.set_defaults(run=run_grade, default=grade.get_default, progress=False)


def add_showing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """What is made of reports that were written."""
    compare = commands.add_parser("compare", help="several JSON reports side by side")
    compare.add_argument("reports", type=Path, nargs="+", metavar="REPORT.json")
    compare.add_argument("--html", type=output, metavar="FILE", help="as a page, too")
    compare.set_defaults(run=run_compare)
    badge = commands.add_parser("badge", help="the verdict of a JSON report as an SVG")
    badge.add_argument("report", type=Path, metavar="REPORT.json")
    badge.add_argument(
        "file", type=output, nargs="?", metavar="FILE", help="default: print it"
    )
    badge.add_argument("--label", default="refdcn", help="before the verdict")
    badge.set_defaults(run=run_badge)


def add_asked(grade: argparse.ArgumentParser) -> None:
    """What is asked."""
    grade.add_argument(
        "--strict",
        action="store_true",
        help="count non-finite inputs, and shapes computed unchecked, in the exit code",
    )
    grade.add_argument("--level", choices=LEVELS, default="smoke")
    grade.add_argument("--seed", type=seed, help="repeat a run; default: a fresh one")
    grade.add_argument(
        "--dtype",
        dest="dtypes",
        nargs="+",
        choices=(*DTYPES, "bfloat16"),
        default=list(DTYPES),
        help="what it is given; bfloat16 with --array torch only",
    )


def add_called(grade: argparse.ArgumentParser) -> None:
    """How the candidate is called, and where."""
    grade.add_argument(
        "--array",
        choices=("numpy", "torch", "cupy"),
        default="numpy",
        help="what it takes; torch: its gradients are autograd's; cupy: on a card",
    )
    grade.add_argument(
        "--as",
        dest="like",
        choices=LIBRARIES,
        metavar="NAME",
        help="whose function it is called as, and how its tensors lie: "
        + ", ".join(LIBRARIES),
    )
    grade.add_argument(
        "--grad",
        dest="companion",
        metavar="SPEC",
        help="its gradients, called as it is but for grad_y before",
    )
    grade.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what runs a model of ONNX; default: the first of these installed",
    )
    grade.add_argument(
        "--device",
        metavar="NAME",
        help="where a torch candidate's tensors are: cuda, mps, xpu",
    )
    grade.add_argument(
        "--python",
        metavar="PATH",
        help="another interpreter to run it under: Python 3.8, NumPy 1.20 or later; "
        "nothing of refdcn is needed there",
    )


def add_files(grade: argparse.ArgumentParser) -> None:
    """What is written beside the text."""
    grade.add_argument(
        "--json", type=output, metavar="FILE", help="write the whole report there"
    )
    grade.add_argument(
        "--html",
        type=output,
        metavar="FILE",
        help="write it as a page with pictures: needs refdcn[report]",
    )
    grade.add_argument(
        "--junit", type=output, metavar="FILE", help="write it as JUnit XML"
    )
    grade.add_argument(
        "--markdown", type=output, metavar="FILE", help="write a summary, as of a job"
    )
    grade.add_argument(
        "--annotate",
        action="store_true",
        help="print the verdict as an annotation of GitHub at the candidate's line",
    )
    grade.add_argument(
        "--script",
        type=output,
        metavar="FILE",
        help="write the smallest failing case as a script that was seen to fail",
    )


def add_declarations(grade: argparse.ArgumentParser) -> None:
    """What it promises, and what it may refuse."""
    grade.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="the working precision it promises, if not its dtype's own",
    )
    grade.add_argument(
        "--convention",
        dest="conventions",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a choice it declares, as border=inside; an unknown one lists all",
    )
    grade.add_argument(
        "--gap",
        dest="gaps",
        action="append",
        default=[],
        metavar="GAP",
        help="calls that it may refuse, as 'groups > 1 and dtype == float64'",
    )
    grade.add_argument(
        "--supports", metavar="FILE", help="more of them, one a line of FILE"
    )


def add_timing(grade: argparse.ArgumentParser) -> None:
    """How many calls are timed, and who beside."""
    grade.add_argument(
        "--timed",
        type=seed,
        metavar="N",
        default=0,
        help="time N calls of a larger case, hold them to the machine's roofline",
    )
    grade.add_argument(
        "--beside",
        action="store_true",
        help="time torchvision, refdcn and the dense convolution as well; without "
        "--timed, 9 calls",
    )


def add_limits(grade: argparse.ArgumentParser) -> None:
    """What one call may take, what is asked and how long."""
    grade.add_argument(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        default=60.0,
        help="for one call; default: 60",
    )
    grade.add_argument(
        "--memory",
        type=gibibytes,
        metavar="GIB",
        default=4 * 2**30,
        help="that one call may allocate (Linux); default: 4",
    )
    grade.add_argument(
        "--only",
        nargs="+",
        choices=GROUPS,
        metavar="GROUP",
        default=[],
        help=f"ask only for these calls: {', '.join(GROUPS)}",
    )
    grade.add_argument(
        "--budget",
        type=positive,
        metavar="SECONDS",
        help="after which nothing more is asked; what was found is diagnosed",
    )


def seed(text: str) -> int:
    """A seed of NumPy's generators, or a count."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a whole number, 0 or more")
    return int(text)


def positive(text: str) -> float:
    """A limit: more than nothing, and not for ever."""
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number more than 0")
    return limit


def gibibytes(text: str) -> int:
    """A limit of memory, in bytes."""
    return int(positive(text) * 2**30)


def output(text: str) -> Path:
    """A file to write when all is done: known before to be in a folder."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a file in a folder")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a file that can be written")
    return path


def run_grade(options: argparse.Namespace) -> int:
    """Grade and print; the exit code is the worst counted verdict's."""
    if options.header:
        print(get_include())
        return 0
    if options.spec is None and not options.self_test:
        print("refdcn grade: SPEC is missing; torchvision is one", file=sys.stderr)
        return 2
    from refdcn.grading import Interrupted
    from refdcn.grading.showing.page import require

    options.progress = True
    try:
        if options.self_test:
            return run_self_test(options)
        if options.html:
            require()
        report = graded(options)
    except refusals() as e:
        print(f"refdcn grade: {e}", file=sys.stderr)
        return 2
    except Interrupted as e:
        report = e.report
    except KeyboardInterrupt:
        print("refdcn grade: interrupted before the first call", file=sys.stderr)
        return 130
    whole = written(report, options)  # first: who reads the text may leave early
    print(report.text())
    if options.annotate:
        from refdcn.grading.showing import machines

        print(machines.annotation(report.document()))
    return report.exit_code if whole else 2


def written(report: Report, options: argparse.Namespace) -> bool:
    """Write the files that were asked for; False where one cannot be."""
    from refdcn.grading.showing import machines, page

    forms = {
        "json": lambda told: report.json() + "\n",
        "html": page.page,
        "junit": machines.junit,
        "markdown": machines.markdown,
    }
    wanted = [name for name in forms if getattr(options, name)]
    told = report.document() if wanted else {}
    try:
        for name in wanted:
            getattr(options, name).write_text(forms[name](told), encoding="utf-8")
        if options.script:
            write_script(report, options.script)
    except OSError as e:
        print(f"refdcn grade: {e}", file=sys.stderr)
        return False
    return True


def refusals() -> tuple[type[Exception], ...]:
    """What says in a sentence why there is no grade."""
    from refdcn.grading import CannotStartError
    from refdcn.grading.judging.gaps import DeclarationError
    from refdcn.grading.process.inside.routes import SpecError
    from refdcn.grading.showing.page import MissingError

    return CannotStartError, SpecError, DeclarationError, MissingError, OSError


def graded(options: argparse.Namespace) -> Report:
    """The report on what was typed: arguments are named as the fields of Options."""
    from refdcn.grading import grade
    from refdcn.grading.judging.gaps import read
    from refdcn.grading.options import NAMES
    from refdcn.grading.process.inside.candidates import check

    check(options.spec)
    if options.supports:
        options.gaps = [*options.gaps, *read(options.supports)]
    pictures = options.html is not None or options.json is not None
    options.smallest = pictures or options.script is not None
    options.evidence = pictures
    options.explain = True
    if options.beside:
        options.timed = options.timed or TIMED
    return grade(options.spec, **{name: getattr(options, name) for name in NAMES})


def write_script(report: Report, path: Path) -> None:
    """Write it, or say why there is none."""
    from refdcn.grading.words.script import why_not

    if report.script:
        path.write_text(report.script)
    else:
        print(f"{path} is not written: {why_not(report)}", file=sys.stderr)


def run_compare(options: argparse.Namespace) -> int:
    """Print several reports side by side."""
    from refdcn.grading.showing import page, reading, side_by_side

    try:
        if options.html:
            page.require()
        told = [reading.read(path) for path in options.reports]
        names = side_by_side.distinct([str(path) for path in options.reports])
        print(side_by_side.text(names, told))
        if options.html:
            text = side_by_side.page(names, told)
            options.html.write_text(text, encoding="utf-8")
    except (reading.ReportError, page.MissingError, OSError) as e:
        print(f"refdcn compare: {e}", file=sys.stderr)
        return 2
    return 0


def run_badge(options: argparse.Namespace) -> int:
    """Write the badge of a report."""
    from refdcn.grading.showing import machines, reading

    try:
        text = machines.badge(reading.read(options.report), options.label)
        if options.file:
            options.file.write_text(text, encoding="utf-8")
        else:
            print(text, end="")
    except (reading.ReportError, OSError) as e:
        print(f"refdcn badge: {e}", file=sys.stderr)
        return 2
    return 0


def run_self_test(options: argparse.Namespace) -> int:
    """Mistakes that must be caught, correct implementations that must not."""
    ignored = [
        FLAGS.get(name, f"--{name}")
        for name, value in vars(options).items()
        if name not in SELF_TEST and value != options.default(name)
    ]
    if ignored:
        print(
            f"refdcn grade: --self-test grades the grader itself; {ignored[0]} has no "
            "meaning there (--seed and --level have)",
            file=sys.stderr,
        )
        return 2
    from refdcn.grading.process.isolation import require_posix
    from refdcn.grading.selftest import selftest

    require_posix()

    seed = 0 if options.seed is None else options.seed
    done = selftest.whole(seed, options.level)
    print(done.text())
    return 0 if done.sound else 1


def run_many(options: argparse.Namespace) -> int:
    """Grade many and print a table."""
    from refdcn.gate import command

    return command.run(options)


def run_vectors(options: argparse.Namespace) -> int:
    """Write inputs, answers and bounds as files."""
    from refdcn.vectors import command

    return command.run(options)


def run_demo(options: argparse.Namespace) -> int:
    """Grade the two shipped kernels; the wrong one must be caught."""
    from refdcn.demo import two_kernels

    return two_kernels.run()


def run_bench(options: argparse.Namespace) -> int:
    """Time this machine's processor, or prove the CUDA target on its card."""
    if options.device == "cuda" or options.check:
        return run_on_card(options)
    from refdcn.bench import command

    return command.run(options)


def run_on_card(options: argparse.Namespace) -> int:
    """What there is to run there: the check, with its timings."""
    if options.device != "cuda" or not options.check:
        print(
            "refdcn bench: --device cuda and --check go together, and time as well",
            file=sys.stderr,
        )
        return 2
    from refdcn.card import check

    return check.run(options.json, options.limit or check.SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code
