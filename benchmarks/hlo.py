"""Reads compiled programs in XLA's text form: kernels and their bytes, convolutions, messages."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Instruction(NamedTuple):
    """A line of an HLO program: `%name = shape op(operands), attributes`."""

    name: str
    shape: str
    op: str
    operands: list[str]
    attributes: str

    def attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found.group(1) if found else ""


WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
LINE = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?"
)


def arrays(shape: str) -> list[tuple[str, list[int]]]:
    """Returns (dtype, sizes) of each array of a shape."""
    shape = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", shape)
    return [
        (dtype, [int(n) for n in sizes.split(",") if n]) for dtype, sizes in ARRAY.findall(shape)
    ]


def nbytes(shape: str) -> int:
    return sum(WIDTHS.get(dtype, 4) * int(np.prod(sizes)) for dtype, sizes in arrays(shape))


def computations(text: str) -> dict[str, list[Instruction]]:
    """Returns the instructions of each computation of an HLO program; the program's is "ENTRY"."""
    found: dict[str, list[Instruction]] = {}
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = "ENTRY" if line.startswith("ENTRY") else line.split(" ", 1)[0].lstrip("%")
            found[name] = []
        elif found and (parts := LINE.match(line)):
            name, shape, op, rest = parts.groups()
            inner, attributes = _split_at_close(rest)
            operands = re.findall(r"%([\w.\-]+)", inner)
            found[list(found)[-1]].append(
                Instruction(name, shape, op, operands, inner + attributes)
            )
    return found


def _split_at_close(text: str) -> tuple[str, str]:
    """Splits after the bracket that closes what was opened before `text`."""
    depth = 1
    for at, character in enumerate(text):
        depth += (character in "({[") - (character in ")}]")
        if not depth:
            return text[:at], text[at:]
    return text, ""


class Convolution(NamedTuple):
    """A TPU's kernel that holds a convolution.

    Attributes:
      is_forward: whether it belongs to the forward pass.
      has_moments: whether it adds up what it computes as well.
      outputs: (dtype, sizes) of what it writes.
      operands: dtypes of the two arrays it convolves.
    """

    is_forward: bool
    has_moments: bool
    outputs: list[tuple[str, list[int]]]
    operands: set[str]


def convolutions(text: str) -> Iterator[Convolution]:
    """Yields the convolutions of a TPU's program; matmuls and pooling, which are some, left out."""
    known = computations(text)
    for line in known["ENTRY"]:
        scope = line.attribute(r'op_name="([^"]*)"')
        if line.op not in ("fusion", "convolution") or "conv_general_dilated" not in scope:
            continue
        inside = list(_inside(known, line)) or [line]
        shapes = {part.name: part.shape for part in inside}
        for part in inside:
            if part.op == "convolution":
                yield Convolution(
                    is_forward="transpose(" not in scope,
                    has_moments=sum(other.op == "reduce" for other in inside) >= 2,
                    outputs=arrays(line.shape),
                    operands={arrays(shapes.get(name, "?[]"))[0][0] for name in part.operands},
                )


def _inside(known: dict[str, list[Instruction]], line: Instruction) -> Iterator[Instruction]:
    for part in known.get(line.attribute(r"calls=%?([\w.\-]+)"), []):
        yield part
        yield from _inside(known, part)


def collectives(text: str) -> list[tuple[str, str, int]]:
    """Returns (kind, dtype, bytes) of each message between devices."""
    found = []
    for lines in computations(text).values():
        for line in lines:
            if kind := COLLECTIVE.fullmatch(line.op):
                shape = line.shape
                if kind.group(2) and kind.group(1) != "all-reduce":  # (operands, results, ..)
                    shape = shape[len(shape) // 2 :]
                kinds = {dtype for dtype, _ in arrays(shape)}
                found.append((kind.group(1), " ".join(sorted(kinds)), nbytes(shape)))
    return found


FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "copy-done"}


def kernels(text: str) -> Iterator[tuple[str, int]]:
    """Yields (kind, bytes read and written) of each kernel of a GPU's program."""
    known = computations(text)
    sizes = {line.name: nbytes(line.shape) for line in known["ENTRY"]}
    for line in known["ENTRY"]:
        if line.op in FREE or COLLECTIVE.match(line.op):
            continue
        written, inside = sizes[line.name], list(_inside(known, line))
        read = sum(sizes.get(name, 0) for name in set(line.operands))
        if line.op == "fusion":
            read = _fusion_reads(inside, line.operands, sizes)
        elif line.op in ("slice", "dynamic-slice", "gather"):
            read = written
        yield _kind(line, inside), written + read


def _fusion_reads(inside, operands, sizes) -> int:
    """Bytes that a fusion reads: of an operand that it only slices, the slices."""
    total = {}
    for parameter in inside:
        if parameter.op != "parameter":
            continue
        operand = operands[int(re.match(r"\d+", parameter.attributes).group())]
        users = [part for part in inside if parameter.name in part.operands]
        sliced = users and all(part.op in ("slice", "dynamic-slice") for part in users)
        total[operand] = sizes.get(operand, 0)
        if sliced:
            total[operand] = min(total[operand], sum(nbytes(part.shape) for part in users))
    return sum(total.values())


def _kind(line: Instruction, inside: Sequence[Instruction]) -> str:
    ops = {part.op for part in inside}
    if line.op == "custom-call":
        return "convolution" if "cudnn$conv" in line.attributes else "other"
    if line.op != "fusion":
        return line.op
    for op, name in (("dot", "matmul"), ("reduce", "sum"), ("transpose", "transpose")):
        if op in ops:
            return name
    return "elementwise"
