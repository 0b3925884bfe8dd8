"""Where a training step's device time goes, by kind of work, from a trace of XLA's profiler.

The trace names the instruction of the compiled program behind each kernel; the program's text says
what that does.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

CONVOLUTIONS, REDUCTIONS = "convolutions and matmuls", "reductions: BatchNorm's sums, pooling"
ELEMENTWISE, COPIES = "elementwise: normalise, ReLU, residual sums", "copies and transposes"
REST, UNKNOWN = "optimizer, loss and the rest", "kernels of no known instruction"

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"(?<=\s)([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_MATMUL = re.compile(r"conv|gemm|dot|xmma|cutlass|nvjet|wgrad|dgrad|fprop|matmul", re.IGNORECASE)
_COPY = re.compile(r"memcpy|memset|copy|transpose|nchw|nhwc", re.IGNORECASE)
_MOVES = {"copy", "copy-start", "transpose", "bitcast", "reshape", "slice", "concatenate", "pad"}
_MOVES |= {"reverse", "parameter", "fusion", "tuple", "get-tuple-element", "constant"}


class Kernel(NamedTuple):
    """A kernel that ran; "" for an instruction that the trace does not name."""

    name: str
    instruction: str
    start: float
    seconds: float


def read(folder: Path, text: str, steps: int) -> dict[str, Any]:
    """Returns the seconds a step of the kernels in a profiler's folder, the longest first.

    `text` is the compiled program's, `steps` how many the trace has. The answer has "categories" ->
    seconds, the longest "kernels", (instruction, category, seconds) each, and the "span" from the
    first kernel's start to the last one's end.
    """
    program, categories, instructions = read_program(text), Counter(), Counter()
    kernels = list(read_trace(folder, text.split(maxsplit=2)[1].rstrip(",")))
    for kernel in kernels:
        category, seconds = classify(kernel, program), kernel.seconds / steps
        categories[category] += seconds
        instructions[kernel.instruction or kernel.name, category] += seconds
    longest = [(*names, seconds) for names, seconds in instructions.most_common(12)]
    begin = min(kernel.start for kernel in kernels)
    span = (max(kernel.start + kernel.seconds for kernel in kernels) - begin) / steps
    return {"categories": dict(categories.most_common()), "kernels": longest, "span": span}


def read_program(text: str) -> dict[str, str]:
    """Reads a compiled program: instruction -> its line and those of all it calls."""
    bodies: dict[str, list[str]] = {}
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            body = bodies.setdefault(found[1], [])
        elif _INSTRUCTION.match(line):
            body.append(line)

    def whole(line: str) -> str:
        inside = [part for called in _CALLED.findall(line) for part in bodies.get(called, ())]
        return "\n".join([line, *map(whole, inside)])

    lines = [line for body in bodies.values() for line in body]
    program = {_INSTRUCTION.match(line)[1]: whole(line) for line in lines}
    # A trace names some kernels by what XLA makes of the instruction's name.
    return {re.sub(r"[.\-]", "_", name): found for name, found in program.items()} | program


def classify(kernel: Kernel, program: dict[str, str]) -> str:
    """Returns the category of a kernel: by its instruction, or by its name where it has none."""
    text = program.get(kernel.instruction) or program.get(kernel.name)
    if text is None:
        by_name = ((_MATMUL, CONVOLUTIONS), (_COPY, COPIES))
        return next((kind for pattern, kind in by_name if pattern.search(kernel.name)), UNKNOWN)
    opcodes = set(_OPCODE.findall(text))
    if opcodes & {"convolution", "dot"} or any(map(_MATMUL.search, _TARGET.findall(text))):
        return CONVOLUTIONS
    if opcodes <= _MOVES:
        return COPIES
    if "(ResNet)" not in text:  # the path of an operation in the traced function
        return REST
    reduces = opcodes & {"reduce", "reduce-window", "select-and-scatter"}
    return REDUCTIONS if reduces else ELEMENTWISE


def read_trace(folder: Path, module: str) -> Iterable[Kernel]:
    """Reads the kernels of a program from the trace in a folder."""
    (file,) = folder.rglob("*.xplane.pb")
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for line in (line for plane in gpus or planes for line in plane.lines):
        for event in line.events if not gpus or line.name.startswith("Stream") else ():
            stats = dict(event.stats)
            # On a CPU, events that name no program are not kernels.
            if stats.get("hlo_module", module if gpus else "") == module:
                times = event.start_ns / 1e9, event.duration_ns / 1e9
                yield Kernel(event.name, stats.get("hlo_op", ""), *times)
