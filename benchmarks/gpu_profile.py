"""Where a training step's device time goes, by kind of work, from a trace of XLA's profiler.

A trace names the instruction of the compiled program behind each kernel; the program's text says
what it does.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

CONVOLUTIONS = "convolutions and matmuls"
REDUCTIONS = "reductions (BatchNorm's statistics and gradients, pooling)"
ELEMENTWISE = "elementwise (normalise, ReLU, residual sums)"
COPIES = "copies and transposes"
REST = "optimizer, loss and the rest"
UNKNOWN = "kernels of no known instruction"
CATEGORIES = (CONVOLUTIONS, REDUCTIONS, ELEMENTWISE, COPIES, REST, UNKNOWN)

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?<=\s)([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_MATMUL = re.compile(r"conv|gemm|dot|xmma|cutlass|nvjet|wgrad|dgrad|fprop|matmul", re.IGNORECASE)
_COPY = re.compile(r"memcpy|memset|copy|transpose|nchw|nhwc", re.IGNORECASE)


class Instruction(NamedTuple):
    """An instruction of a compiled program.

    Attributes:
      opcodes: its own, and those inside the computations that it calls.
      targets: of the library calls among them.
      origin: the path of the operation in the traced function; of all inside, where it has none
        itself.
    """

    opcodes: frozenset[str]
    targets: frozenset[str]
    origin: str


class Event(NamedTuple):
    """A kernel that ran: its name, its instruction's name ("" if the trace does not say), seconds
    from `start`.
    """

    name: str
    instruction: str
    start: float
    seconds: float


class Breakdown(NamedTuple):
    """Device seconds a step.

    Attributes:
      categories: of each of `CATEGORIES`.
      kernels: the longest instructions with their categories: (name, category, seconds), falling.
      span: from the first kernel's start to the last one's end; less than the sum where kernels
        overlap.
    """

    categories: dict[str, float]
    kernels: list[tuple[str, str, float]]
    span: float


def read_program(text: str) -> dict[str, Instruction]:
    """Reads the text of a compiled program (`compiled.as_text()`): its name, and its kernel's, ->
    what it is.
    """
    bodies: dict[str, list[str]] = {}
    body: list[str] = []
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            body = bodies.setdefault(found[1], [])
        elif _INSTRUCTION.match(line):
            body.append(line)

    @functools.cache
    def contents(computation: str) -> Instruction:
        parts = [describe(line) for line in bodies.get(computation, ())]
        opcodes, targets = (frozenset().union(*(part[field] for part in parts)) for field in (0, 1))
        return Instruction(opcodes, targets, " ".join(part.origin for part in parts if part.origin))

    def describe(line: str) -> Instruction:
        inside = [contents(called) for called in _CALLED.findall(line)]
        opcodes = frozenset(_OPCODE.findall(line)[:1]).union(*(part.opcodes for part in inside))
        targets = frozenset(_TARGET.findall(line)).union(*(part.targets for part in inside))
        own = _ORIGIN.search(line)
        return Instruction(
            opcodes, targets, own[1] if own else " ".join(part.origin for part in inside)
        )

    program = {
        _INSTRUCTION.match(line)[1]: describe(line) for lines in bodies.values() for line in lines
    }
    return {kernel_name(name): instruction for name, instruction in program.items()} | program


def kernel_name(instruction: str) -> str:
    """What XLA calls the kernel of an instruction."""
    return re.sub(r"[.\-]", "_", instruction)


def classify(event: Event, program: Mapping[str, Instruction]) -> str:
    """Returns the category of a kernel: by its instruction, by its own name where that is
    unknown.
    """
    instruction = program.get(event.instruction) or program.get(event.name)
    if instruction is None:
        by_name = ((_MATMUL, CONVOLUTIONS), (_COPY, COPIES))
        return next(
            (category for pattern, category in by_name if pattern.search(event.name)), UNKNOWN
        )
    opcodes = instruction.opcodes
    if opcodes & {"convolution", "dot"} or any(map(_MATMUL.search, instruction.targets)):
        return CONVOLUTIONS
    if "(ResNet)" not in instruction.origin:
        return COPIES if _only_moves(opcodes) else REST
    if opcodes & {"reduce", "reduce-window", "select-and-scatter"}:
        return REDUCTIONS
    return COPIES if _only_moves(opcodes) else ELEMENTWISE


def _only_moves(opcodes: frozenset[str]) -> bool:
    moves = {
        "copy",
        "copy-start",
        "transpose",
        "bitcast",
        "reshape",
        "slice",
        "concatenate",
        "pad",
        "reverse",
    }
    passive = {"parameter", "fusion", "tuple", "get-tuple-element", "constant"}
    return bool(opcodes & moves) and opcodes <= moves | passive


def break_down(
    events: Iterable[Event], program: Mapping[str, Instruction], steps: int, longest: int = 12
) -> Breakdown:
    """Sums the kernels' times by category.

    Args:
      events: of `steps` steps; see `read_trace`.
      program: see `read_program`.
      steps: how many.
      longest: how many instructions to name.
    """
    events = list(events)
    categories, named = dict.fromkeys(CATEGORIES, 0.0), defaultdict(float)
    for event in events:
        category = classify(event, program)
        categories[category] += event.seconds / steps
        named[event.instruction or event.name, category] += event.seconds / steps
    order = sorted(named.items(), key=lambda item: -item[1])[:longest]
    span = 0.0
    if events:
        span = max(event.start + event.seconds for event in events) - min(
            event.start for event in events
        )
    return Breakdown(categories, [(*key, seconds) for key, seconds in order], span / steps)


def read_trace(directory: Path, module: str) -> list[Event]:
    """Reads the newest trace that `jax.profiler.trace` left in a directory.

    Args:
      directory: that was given to the profiler.
      module: the compiled program's name, such as "jit_step". A kernel that names another program
        is left out, as is, on the CPU, an event that names none.

    Raises:
      FileNotFoundError: there is no trace.
    """
    import jax

    files = sorted(Path(directory).rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{directory}: no trace (*.xplane.pb)")
    planes = list(jax.profiler.ProfileData.from_file(str(files[-1])).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    lines = [
        line
        for plane in devices or planes
        for line in plane.lines
        if not devices or line.name.startswith("Stream")
    ]
    found = []
    for line in lines:
        for event in line.events:
            stats = {name: value for name, value in event.stats if name in ("hlo_op", "hlo_module")}
            if stats.get("hlo_module", module if devices else "") != module:
                continue
            instruction = stats.get("hlo_op", "")
            found.append(
                Event(event.name, instruction, event.start_ns / 1e9, event.duration_ns / 1e9)
            )
    return found
