"""The LLVM IR that numba-cuda hands to NVVM, run on this processor and watched.

A thread of a block is a stack of its own (ucontext), switched at barriers and shuffles
alone, so that each run is the same. Before every load, store and atomic the IR calls
`machine_access`, which refuses what lies outside the arrays and writes a log. From the
log follow

    faults    accesses outside every array
    races     two threads on one number, one writing, no barrier between them
    sectors   32-byte pieces of memory that a warp's access touches

Unchecked stay what NVVM and ptxas make of the IR: contraction to fma, scheduling.
"""

import ctypes
import mmap
import re
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import llvmlite.binding as llvm
import numba.cuda.dispatcher
import numpy as np
from cuda_machines import HostArrays
from numba import int64, types, void
from numba.cuda import compiler
from numba.np.numpy_support import from_dtype

CC = (9, 0)
# numba-cuda asks the current device, in one place, for what it is compiling for.
numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(
    compute_capability=CC
)
llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

# --- The machine, in IR --------------------------------------------------------------

WORDS = (
    [f"{r}_{axis}" for r in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
    + ["thread", "log", "log_used", "log_size", "ranges", "ranges_used"]
    + ["stacks", "stacks_end", "state", "args", "context", "scheduler"]
    + ["slots", "turns"]
)  # fmt: skip
AT = {name: i for i, name in enumerate(WORDS)}
DONE, BARRIER, SHUFFLE = range(3)
LOAD, STORE, ATOMIC, OUTSIDE = 0, 1, 2, 4
RECORD = np.dtype(
    [(name, np.int64) for name in ("address", "size", "kind", "thread", "site")]
)


def word(name, to):
    return f"  {to} = load i64, ptr getelementptr (i64, ptr @machine, i64 {AT[name]})\n"


def pointer(name, to):
    return word(name, f"{to}.i") + f"  {to} = inttoptr i64 {to}.i to ptr\n"


def put(name, value):
    place = f"ptr getelementptr (i64, ptr @machine, i64 {AT[name]})"
    return f"  store i64 {value}, {place}\n"


def runtime():
    registers = "".join(
        f"define i32 @machine_sreg_{name}() {{\n{word(name, '%v')}"
        "  %r = trunc i64 %v to i32\n  ret i32 %r\n}\n"
        for name in WORDS[:12]
    )
    adds = "".join(
        f"define {t} @machine_add_{n}(ptr %p, {t} %v) {{\n"
        f"  %s = call ptr @machine_access(ptr %p, i64 {size}, i64 {ATOMIC}, i64 -1)\n"
        f"  %o = load {t}, ptr %s\n  %w = fadd {t} %o, %v\n"
        f"  store {t} %w, ptr %s\n  ret {t} %o\n}}\n"
        for n, t, size in (("f32", "float", 4), ("f64", "double", 8))
    )
    return f"""
@machine = global [{len(WORDS)} x i64] zeroinitializer
@machine_nowhere = global [16 x i8] zeroinitializer
declare i32 @swapcontext(ptr, ptr)
{registers}{adds}
define void @machine_yield(i64 %state) {{
{put("state", "%state")}{pointer("context", "%own")}{pointer("scheduler", "%to")}
  %r = call i32 @swapcontext(ptr %own, ptr %to)
  ret void
}}
define void @machine_barrier() {{
  call void @machine_yield(i64 {BARRIER})
  ret void
}}
; Two slots a thread, taken in turn: a slow reader finds what was meant for it.
define {{ i32, i1 }} @machine_shuffle(i32 %m, i32 %mode, i32 %v, i32 %b, i32 %c) {{
{word("thread", "%t")}{pointer("slots", "%slots")}{pointer("turns", "%turns")}
  %turn.p = getelementptr i64, ptr %turns, i64 %t
  %turn = load i64, ptr %turn.p
  %next = xor i64 %turn, 1
  store i64 %next, ptr %turn.p
  %row = mul i64 %turn, 1024
  %mine.i = add i64 %row, %t
  %mine = getelementptr i32, ptr %slots, i64 %mine.i
  store i32 %v, ptr %mine
  call void @machine_yield(i64 {SHUFFLE})
  %other = zext i32 %b to i64
  %across = xor i64 %t, %other
  %all = icmp eq i32 %m, -1
  %from = select i1 %all, i64 %across, i64 %t ; lanes left out receive nothing
  %from.i = add i64 %row, %from
  %theirs = getelementptr i32, ptr %slots, i64 %from.i
  %got = load i32, ptr %theirs
  %r0 = insertvalue {{ i32, i1 }} undef, i32 %got, 0
  %r1 = insertvalue {{ i32, i1 }} %r0, i1 true, 1
  ret {{ i32, i1 }} %r1
}}
define ptr @machine_access(ptr %p, i64 %size, i64 %kind, i64 %site) {{
entry:
  %a = ptrtoint ptr %p to i64
  %end = add i64 %a, %size
{word("stacks", "%lo")}{word("stacks_end", "%hi")}
  %above = icmp uge i64 %a, %lo
  %below = icmp ule i64 %end, %hi
  %own = and i1 %above, %below
  br i1 %own, label %local, label %look
local:
  ret ptr %p
look:
{word("ranges_used", "%n")}{pointer("ranges", "%ranges")}
  br label %loop
loop:
  %i = phi i64 [ 0, %look ], [ %i.next, %more ]
  %left = icmp ult i64 %i, %n
  br i1 %left, label %compare, label %outside
compare:
  %j = mul i64 %i, 2
  %lo.p = getelementptr i64, ptr %ranges, i64 %j
  %hi.p = getelementptr i64, ptr %lo.p, i64 1
  %r.lo = load i64, ptr %lo.p
  %r.hi = load i64, ptr %hi.p
  %r.above = icmp uge i64 %a, %r.lo
  %r.below = icmp ule i64 %end, %r.hi
  %inside = and i1 %r.above, %r.below
  br i1 %inside, label %write, label %more
more:
  %i.next = add i64 %i, 1
  br label %loop
outside:
  br label %write
write:
  %safe = phi ptr [ %p, %compare ], [ @machine_nowhere, %outside ]
  %fault = phi i64 [ 0, %compare ], [ {OUTSIDE}, %outside ]
{word("log_used", "%used")}{word("log_size", "%room")}
  %fits = icmp ult i64 %used, %room
  %used.next = add i64 %used, 1
{put("log_used", "%used.next")}
  br i1 %fits, label %record, label %return
record:
{pointer("log", "%log")}{word("thread", "%thread")}
  %at = mul i64 %used, 5
  %f0 = getelementptr i64, ptr %log, i64 %at
  %f1 = getelementptr i64, ptr %f0, i64 1
  %f2 = getelementptr i64, ptr %f0, i64 2
  %f3 = getelementptr i64, ptr %f0, i64 3
  %f4 = getelementptr i64, ptr %f0, i64 4
  %kinds = or i64 %kind, %fault
  store i64 %a, ptr %f0
  store i64 %size, ptr %f1
  store i64 %kinds, ptr %f2
  store i64 %thread, ptr %f3
  store i64 %site, ptr %f4
  br label %return
return:
  ret ptr %safe
}}
define float @machine_f16_to_f32(i16 %v) #0 {{
  %h = bitcast i16 %v to half
  %r = fpext half %h to float
  ret float %r
}}
define i16 @machine_f32_to_f16(float %v) #0 {{
  %h = fptrunc float %v to half
  %r = bitcast half %h to i16
  ret i16 %r
}}
attributes #0 = {{ "target-features"="+avx,+f16c" }}
"""


# --- From the compiler's IR to this processor ----------------------------------------

SIZES = {"float": 4, "double": 8, "i64": 8, "i32": 4, "i16": 2, "half": 2, "i8": 1,
         "i1": 1, "ptr": 8}  # fmt: skip
OPERAND = r'(%"[^"]+"|%[\w.$-]+|@"[^"]+"|@[\w.$-]+)'
ACCESS = re.compile(
    rf"^  (?:(?P<to>%\S+|%\"[^\"]+\") = load (?P<loaded>{'|'.join(SIZES)})"
    rf"|store (?P<stored>{'|'.join(SIZES)}) (?P<value>[^,]+)), "
    rf"ptr {OPERAND}(?P<rest>.*)$",
    re.M,
)


def on_this_processor(text):
    """One module's IR without what only NVVM knows."""
    text = re.sub(r"^target .*\n|^!nvvm.*\n", "", text, flags=re.M)
    text = re.sub(r"addrspacecast (.*?) addrspace\(3\)\*", r"bitcast \1*", text)
    text = text.replace("addrspace(3) ", "").replace("addrspace(3)", "")
    text = text.replace("ptx_kernel", "")
    sreg = r"llvm\.nvvm\.read\.ptx\.sreg\.(\w+)\.(\w)"
    text = re.sub(sreg, r"machine_sreg_\1_\2", text)
    text = re.sub(r"llvm\.nvvm\.barrier0|llvm\.nvvm\.barrier\.cta\.sync\.aligned\.all",
                  "machine_barrier", text)  # fmt: skip
    text = text.replace("llvm.nvvm.shfl.sync.i32", "machine_shuffle")
    cast = r'asm +"cvt\.(?:rn\.)?(f16|f32)\.(f16|f32) \$0, \$1;", "[^"]*"'
    text, casts = re.subn(cast, r"@machine_\2_to_\1", text)
    if casts:
        text += "declare float @machine_f16_to_f32(i16)\n"
        text += "declare i16 @machine_f32_to_f16(float)\n"
    add = r"llvm\.nvvm\.atomic\.load\.add\.(f32|f64)\.p0f\d+"
    return f'target triple = "{llvm.get_process_triple()}"\n' + re.sub(
        add, r"machine_add_\1", text
    )


def watched(text):
    """A call of machine_access before each access to memory."""
    sites = []

    def replace(match):
        kind = LOAD if match["to"] else STORE
        dtype = match["loaded"] or match["stored"]
        sites.append(match[0].strip())
        n = len(sites) - 1
        place = match[5]
        call = (
            f"  %safe{n} = call ptr @machine_access(ptr {place}, i64 {SIZES[dtype]}, "
            f"i64 {kind}, i64 {n})\n"
        )
        start = (
            f"{match['to']} = load {dtype}"
            if kind == LOAD
            else (f"store {dtype} {match['value']}")
        )
        return f"{call}  {start}, ptr %safe{n}{match['rest']}"

    declared = "\ndeclare ptr @machine_access(ptr, i64, i64, i64)\n"
    return ACCESS.sub(replace, text) + declared, sites


def signature(args):
    """Of a kernel called with NumPy arrays, ints and (named) tuples of ints."""

    def of(a):
        if isinstance(a, np.ndarray):
            layout = "C" if a.flags.c_contiguous else "A"
            return types.Array(from_dtype(a.dtype), a.ndim, layout)
        if isinstance(a, tuple):
            return types.BaseTuple.from_types([of(b) for b in a], type(a))
        return int64

    return void(*map(of, args))


def compile_ir(kernel, sig):
    """The modules' IR, and the name of the kernel in them."""
    library, _ = compiler._compile_pyfunc_with_fixup(
        kernel, sig, debug=False, lineinfo=False, device=False, cc=CC, opt=True,
        abi="numba",
    )  # fmt: skip
    return library.llvm_strs, library._entry_name


class Code(NamedTuple):
    """A kernel on this processor."""

    engine: object
    entry: int
    machine: np.ndarray
    shared: list
    sites: list


@cache
def code(kernel, sig):
    sources, name = compile_ir(kernel, sig)
    module = llvm.parse_assembly(on_this_processor(sources[0]))
    for source in sources[1:]:
        module.link_in(llvm.parse_assembly(on_this_processor(source)))
    target = llvm.Target.from_default_triple().create_target_machine(opt=2)
    builder = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()  # what then still goes to memory goes there on a card
    passes.run(module, builder)
    text, sites = watched(str(module))
    module = llvm.parse_assembly(text)
    module.link_in(llvm.parse_assembly(runtime()))
    module.link_in(llvm.parse_assembly(trampoline(module.get_function(name))))
    libm = ctypes.CDLL("libm.so.6")
    for f in module.functions:
        if f.is_declaration and f.name.startswith("__nv_"):
            own = getattr(libm, f.name.removeprefix("__nv_").replace("nand", "nan"))
            llvm.add_symbol(f.name, ctypes.cast(own, ctypes.c_void_p).value)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    words = ctypes.c_int64 * len(WORDS)
    machine = words.from_address(engine.get_global_value_address("machine"))
    shared = [
        (engine.get_global_value_address(n), int(count) * SIZES[t])
        for n, count, t in re.findall(
            r"^@(_cudapy_smem\w*) = .*?global \[(\d+) x (\w+)\]", text, re.M
        )
    ]
    entry = engine.get_function_address("machine_enter")
    return Code(engine, entry, np.frombuffer(machine, np.int64), shared, sites)


def trampoline(kernel):
    """A function without arguments, as makecontext wants it."""
    lines, operands = [], []
    for i, argument in enumerate(kernel.arguments):
        dtype = str(argument.type)
        lines.append(f"  %p{i} = getelementptr i64, ptr %args, i64 {i}\n")
        lines.append(f"  %a{i} = load {dtype}, ptr %p{i}\n")
        operands.append((dtype, f"{dtype} %a{i}"))
    declared = ", ".join(dtype for dtype, _ in operands)
    given = ", ".join(operand for _, operand in operands)
    head = "@machine = external global [0 x i64]\ndeclare void @machine_yield(i64)\n"
    return (
        f'{head}declare void @"{kernel.name}"({declared})\n'
        f"define void @machine_enter() {{\n{pointer('args', '%args')}{''.join(lines)}"
        f'  call void @"{kernel.name}"({given})\n'
        f"  call void @machine_yield(i64 {DONE})\n  ret void\n}}\n"
    )


# --- Running it ----------------------------------------------------------------------

CONTEXT_BYTES, STACK_BYTES, THREADS, LOG = 4096, 1 << 16, 1024, 1 << 21
libc = ctypes.PyDLL("libc.so.6")
for function in ("getcontext", "makecontext", "swapcontext"):
    getattr(libc, function).restype = ctypes.c_int


def aligned(size):
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


class Report(NamedTuple):
    """What one launch did: records of the log, and what was found in them."""

    kernel: str
    records: np.ndarray
    arrays: list
    sites: list

    @property
    def faults(self):
        outside = self.records[self.records["kind"] & OUTSIDE > 0]
        return sorted({self.site(r) for r in outside})

    def site(self, record):
        return "machine_add" if record["site"] < 0 else self.sites[record["site"]]

    @property
    def races(self):
        """Accesses by which two threads meet, without a barrier between them."""
        return sorted(set(_races(self.records, self.sites)))

    def sectors(self, array, least_lanes=1):
        """32-byte sectors that the warps touch of an array, over the fewest."""
        lo, r = array.ctypes.data, self.records
        r = r[(r["address"] >= lo) & (r["address"] < lo + array.nbytes)]
        touched = fewest = 0
        for turn in _warp_accesses(r):
            pieces = set((turn["address"] // 32).tolist())
            distinct = len(set(turn["address"].tolist()))
            if distinct >= least_lanes:
                touched += len(pieces)
                fewest += -(-distinct * int(turn["size"][0]) // 32)
        return touched / fewest


def _warp_accesses(r):
    """Records of each warp's n-th access at each site."""
    seen, groups = {}, {}
    for row in r:
        key = row["block"], row["thread"], row["site"]
        n = seen[key] = seen.get(key, -1) + 1
        warp = row["block"], row["thread"] // 32, row["site"], n
        groups.setdefault(warp, []).append(row)
    return [np.array(rows, r.dtype) for rows in groups.values()]


def _races(r, sites):
    order = np.lexsort((r["epoch"], r["block"], r["address"]))
    r = r[order]
    writes = r["kind"] & 3 == STORE
    # Shared memory is each block's own, though all have it at one address here.
    place = np.stack([r["address"], np.where(r["shared"], r["block"], -1)])
    starts = np.flatnonzero(np.r_[True, (np.diff(place) != 0).any(0)])
    for low, high in zip(starts, np.r_[starts[1:], len(r)], strict=True):
        group, writing = r[low:high], writes[low:high]
        atomic = group["kind"] & 3 == ATOMIC
        if not writing.any() and (not atomic.any() or atomic.all()):
            continue
        for pairs in _together(group):
            who = {(row["block"], row["thread"]) for row in group[pairs]}
            if len(who) > 1 and (writing[pairs].any() or (
                atomic[pairs].any() and not atomic[pairs].all()
            )):  # fmt: skip
                yield " and ".join(sorted({sites[s] for s in group["site"][pairs]}))


def _together(group):
    """Accesses that nothing puts in order: of several blocks, or in one interval."""
    if len(set(group["block"].tolist())) > 1:
        yield np.arange(len(group))
        return
    for epoch in set(group["epoch"].tolist()):
        yield np.flatnonzero(group["epoch"] == epoch)


class Machine:
    """Stacks and contexts for the threads of one block."""

    def __init__(self):
        self.contexts = aligned(CONTEXT_BYTES * (THREADS + 1))
        self.stacks = aligned(STACK_BYTES * THREADS)
        self.slots = np.zeros(2 * 1024, np.int32)
        self.turns = np.zeros(THREADS, np.int64)
        self.log = np.zeros(LOG, RECORD)

    def context(self, i):
        return self.contexts.ctypes.data + CONTEXT_BYTES * i

    def run(self, code, blocks, threads, args, arrays, only=None):
        """All blocks one after another, or `only` this one."""
        slots = np.array(flattened(args), np.int64)
        words = code.machine
        ranges = [(a.ctypes.data, a.ctypes.data + _extent(a)) for a in arrays]
        ranges += [(lo, lo + size) for lo, size in code.shared]
        table = np.array(ranges, np.int64)
        scheduler = self.context(THREADS)
        for name, value in (
            ("log", self.log.ctypes.data), ("log_size", LOG), ("log_used", 0),
            ("ranges", table.ctypes.data), ("ranges_used", len(table)),
            ("stacks", self.stacks.ctypes.data),
            ("stacks_end", self.stacks.ctypes.data + self.stacks.size),
            ("args", slots.ctypes.data), ("scheduler", scheduler),
            ("slots", self.slots.ctypes.data), ("turns", self.turns.ctypes.data),
        ):  # fmt: skip
            words[AT[name]] = value
        records = []
        places = np.ndindex(blocks[::-1]) if only is None else [only[::-1]]
        for b, place in enumerate(places):
            self.block(code, b, place[::-1], blocks, threads, records)
        return np.concatenate(records)

    def block(self, code, b, place, blocks, threads, records):
        words = code.machine
        for name, values in (("ntid", threads), ("ctaid", place), ("nctaid", blocks)):
            for axis, value in zip("xyz", values, strict=True):
                words[AT[f"{name}_{axis}"]] = value
        for address, size in code.shared:
            ctypes.memset(address, 0xFF, size)  # NaN: what nobody wrote shows
        self.turns[:] = 0
        waiting = dict.fromkeys(range(int(np.prod(threads))))
        for thread in waiting:
            self.start(code, thread)
        ready, epoch = list(waiting), 0
        while waiting:
            for thread in ready:
                self.resume(words, thread, threads)
                waiting[thread] = int(words[AT["state"]])
            self.collect(code, records, b, epoch)
            done = [t for t in waiting if waiting[t] == DONE]
            for thread in done:
                del waiting[thread]
            ready = self.released(waiting, bool(done))
            if ready and waiting[ready[0]] == BARRIER:
                epoch += 1

    def start(self, code, thread):
        context = self.context(thread)
        libc.getcontext(ctypes.c_void_p(context))
        words = (ctypes.c_int64 * 8).from_address(context)
        words[1] = self.context(THREADS)  # uc_link
        words[2] = self.stacks.ctypes.data + STACK_BYTES * thread
        words[3], words[4] = 0, STACK_BYTES
        entry = ctypes.c_void_p(code.entry)
        libc.makecontext(ctypes.c_void_p(context), entry, 0)

    def resume(self, words, thread, threads):
        x, y, _ = threads
        words[AT["thread"]] = thread
        words[AT["tid_x"]] = thread % x
        words[AT["tid_y"]] = thread // x % y
        words[AT["tid_z"]] = thread // (x * y)
        context = self.context(thread)
        words[AT["context"]] = context
        libc.swapcontext(
            ctypes.c_void_p(self.context(THREADS)), ctypes.c_void_p(context)
        )

    def released(self, waiting, some_done):
        """Threads that go on: warps whose shuffle is complete, or all at a barrier."""
        if not waiting:
            return []
        assert not some_done, "some threads left while others wait for them"
        ready = []
        for warp in {t // 32 for t in waiting}:
            lanes = [t for t in waiting if t // 32 == warp]
            if all(waiting[t] == SHUFFLE for t in lanes):
                assert len(lanes) == 32, "a shuffle of all lanes in a smaller warp"
                ready += lanes
        if ready:
            return ready
        assert all(s == BARRIER for s in waiting.values()), "a barrier not all reach"
        return list(waiting)

    def collect(self, code, records, block, epoch):
        used = int(code.machine[AT["log_used"]])
        assert used <= LOG, "the log is full; run a smaller case"
        log = self.log[:used]
        extra = [("block", np.int64), ("epoch", np.int64), ("shared", np.bool_)]
        out = np.zeros(used, RECORD.descr + extra)
        for name in RECORD.names:
            out[name] = log[name]
        out["block"], out["epoch"] = block, epoch
        for address, size in code.shared:
            inside = (out["address"] >= address) & (out["address"] < address + size)
            out["shared"] |= inside
        records.append(out)
        code.machine[AT["log_used"]] = 0


def _extent(a):
    """Bytes from the first number of an array to past its last."""
    if a.size == 0:
        return 0
    steps = zip(a.shape, a.strides, strict=True)
    return sum((n - 1) * s for n, s in steps) + a.itemsize


def flattened(args):
    """The kernel's arguments as 64-bit words, in the order of Numba's ABI."""
    words = []
    for a in args:
        if isinstance(a, np.ndarray):
            # meminfo, parent, count, size of an item, data, shape, strides
            words += [0, 0, a.size, a.itemsize, a.ctypes.data, *a.shape, *a.strides]
        elif isinstance(a, tuple):
            words += flattened(a)
        else:
            words.append(a)
    return words


def three(sizes, fill=1):
    return (*sizes, *(fill,) * (3 - len(sizes)))


def huge(count, dtype=np.float32):
    """Zeros that take no memory until they are touched."""
    size = count * np.dtype(dtype).itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE of Linux
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), dtype)


def launched(kernel, blocks, threads, args, only=None):
    """A Report of the launch."""
    Processor.machine = Processor.machine or Machine()
    held = [a for b in args for a in (b if isinstance(b, tuple) else (b,))]
    held = [a for a in held if isinstance(a, np.ndarray)]
    made = code(kernel, signature(args))
    records = Processor.machine.run(
        made, three(blocks), three(threads), args, held, only
    )
    report = Report(kernel.__name__, records, held, made.sites)
    assert not report.faults, f"{kernel.__name__}: {report.faults}"
    return report


def run_block(kernel, block, blocks, threads, *args):
    """One block of a launch."""
    return launched(kernel, blocks, threads, args, three(block, 0))


class Processor(HostArrays):
    """Runs kernels from their IR; reports[i] is what launch i did."""

    machine = None

    def __init__(self, own_product=False):
        super().__init__(own_product)
        self.reports = []

    def launch(self, kernel, blocks, threads, *args):
        self.reports.append(launched(kernel, blocks, threads, args))

    @property
    def races(self):
        return [f"{r.kernel}: {race}" for r in self.reports for race in r.races]
