"""The record and the page of the GPU contest: one section a device, one row a contestant of a
match.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from benchmarks.contest import Ratio, ratio, say_versions, speed
from benchmarks.gpu_contestants import BATCHES, CONTESTANTS, OURS, VARIANTS
from resnet_jax import create_model
from resnet_jax.models.analysis.roofline import DATA_SHEETS
from resnet_jax.models.analysis.summary import summarize

COMMAND = "python -m benchmarks.gpu_training --output results"
# Shares of the unfused memory bound, wanted and aimed at, and the ratio to torch.compile; of what.
WANTED_SHARE, AIMED_SHARE, WANTED_RATIO = 0.43, 0.60, 1.2
WANTED_OF = ("resnet50", 224, "bfloat16")
COMPILED = ("torch", "torch-graphs", "torch-autotune")
CATALOGUED = ("NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA A100-SXM4-80GB")

Match = dict[str, Any]
Record = dict[str, dict[str, Any]]


@functools.cache
def bound(device: str, network: str, side: int = 224, dtype: str = "bfloat16") -> float | None:
    """Images per second at which unfused training fills a device's memory bandwidth; None for an
    unknown device.

    See `roofline.training_floor` for the traffic that is counted.
    """
    if device not in DATA_SHEETS:
        return None
    _, bandwidth = DATA_SHEETS[device]
    wide = jnp.dtype(dtype).itemsize // 2
    return bandwidth / (wide * summarize(create_model(network), side).floor.unfused_bytes)


def read(folder: Path | None) -> Record:
    """Reads the record in a folder: device -> "machine" and "matches"; empty where there is
    none.
    """
    path = folder and folder / "gpu_training.json"
    return json.loads(path.read_text()) if path and path.exists() else {}


def write(folder: Path | None, record: Record) -> None:
    """Writes the record, if it has any figures, and the page; nothing without a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if record:
        (folder / "gpu_training.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "gpu_training.md").write_text(page(record))


def add(record: Record, device: str, machine: dict[str, Any], match: Match) -> None:
    """Adds a match to the record, in place of an earlier one of the same problem and
    contestants.
    """
    section = record.setdefault(device, {"matches": []})
    section["machine"] = machine

    def is_same(other: Match) -> bool:
        return other["problem"] == match["problem"] and [*other["contestants"]] == [
            *match["contestants"]
        ]

    matches = section["matches"]
    place = next((number for number, other in enumerate(matches) if is_same(other)), len(matches))
    matches[place : place + 1] = [match]


def page(record: Record) -> str:
    """The whole page; says what is missing where the record is empty."""
    lines = [
        "# Training on one GPU beside the peers",
        "",
        f"Written by `{COMMAND}`, and with `--variants` for the variants.",
        (
            "Images/s of whole training steps (momentum SGD with weight decay) on one batch of"
            " random images that lies on"
        ),
        (
            "the device. Every contestant has a process of its own; they take turns of some"
            " seconds. Speeds and ratios are"
        ),
        (
            "medians over the rounds, with their range; a ratio is taken round by round. The bound"
            " is the bandwidth of the"
        ),
        (
            "device's data sheet over the memory traffic of unfused training. Memory is the most"
            " that arrays held at once,"
        ),
        (
            "compilation included. The first step includes compiling, unless the same run did that"
            " before."
        ),
        "[GPU notes](../docs/gpu_notes.md) has the leads with their predictions.",
        "",
    ]
    for device, section in record.items():
        lines += _section(device, section)
    return "\n".join(lines + ([] if record else _pending())).rstrip() + "\n"


def _pending() -> list[str]:
    lines = [
        (
            "**Not yet measured.** What the figures will be held against, computed from the"
            " networks' shapes at 224x224 in"
        ),
        (
            f"bfloat16: wanted of ResNet-50 are {WANTED_SHARE:.0%} of the bound and"
            f" {WANTED_RATIO:g} times torch.compile;"
        ),
        f"{AIMED_SHARE:.0%} is aimed at.",
        "",
        "| device | network | unfused memory bound, images/s | wanted | aimed at |",
        "|---|---|---|---|---|",
    ]
    for device in CATALOGUED:
        for network in BATCHES:
            limit = bound(device, network)
            goals = (
                [limit * share for share in (WANTED_SHARE, AIMED_SHARE)]
                if network == WANTED_OF[0]
                else []
            )
            cells = [f"{goal:,.0f}" for goal in goals] or ["–", "–"]
            lines.append(f"| {device} | {network} | {limit:,.0f} | {' | '.join(cells)} |")
    return lines


def _section(device: str, section: dict[str, Any]) -> list[str]:
    host, matches = section["machine"], section["matches"]
    packages = say_versions(host["versions"])
    networks = [match for match in matches if not _is_of_variants(match)]
    variants = [match for match in matches if _is_of_variants(match)]
    lines = [
        f"## {device}",
        "",
        f"{host['gpu'] or host['cpu']}; {packages}; {host['cores']} cores.",
        "",
    ]
    if networks:
        lines += ["### Best of each contestant", "", *_best(device, networks), ""]
        lines += ["### Matches", "", *_table(device, networks), ""]
    profiled = [match for match in matches if match["breakdown"]]
    if profiled:
        lines += ["### Where our step's time goes", "", *_breakdown(profiled[0]), ""]
    if variants:
        lines += ["### Variants of ours", "", *_table(device, variants), ""]
    return lines


def match_table(device: str, match: Match) -> str:
    """One match, to be printed."""
    return "\n".join(_table(device, [match]))


def _is_of_variants(match: Match) -> bool:
    return any(name in VARIANTS for name in match["contestants"])


def _rounds(match: Match, name: str) -> list[dict[str, float]]:
    """The rounds that a contestant played, those apart from the others if it had to."""
    return match["apart"].get(name, match["rounds"])


def _speed(match: Match, name: str) -> Ratio | None:
    return speed(_rounds(match, name), name, match["problem"]["batch"])


def _share(device: str, match: Match, images_per_second: float) -> float | None:
    problem = match["problem"]
    limit = bound(device, problem["network"], problem["side"], problem["dtype"])
    return images_per_second / limit if limit else None


def _table(device: str, matches: list[Match]) -> list[str]:
    lines = [
        (
            "| network | batch | contestant | images/s | ours / it | of the bound | memory, GiB |"
            " first step, s | failed |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for match in matches:
        base = match["contestants"][0]
        for name in match["contestants"]:
            problem, found = match["problem"], _speed(match, name)
            against = ratio(_rounds(match, name), base, name) if name != base else None
            share = _share(device, match, found.median) if found else None
            peak = match["peak_bytes"].get(name)
            ready = match["ready"].get(name)
            cells = [
                f"{problem['network']}, {problem['side']}, {problem['dtype']}",
                problem["batch"],
                name,
                f"{found.median:,.1f} ({found.low:,.1f} to {found.high:,.1f})" if found else "–",
                (
                    f"{against.median:.2f} ({against.low:.2f} to {against.high:.2f})"
                    if against
                    else "–"
                ),
                f"{share:.1%}" if share else "–",
                f"{peak / 2**30:.1f}" if peak else "–",
                f"{ready['first_step_seconds']:.1f}" if ready else "–",
                match["errors"].get(name, "").replace("|", "/"),
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    notes = {
        name: (CONTESTANTS | VARIANTS)[name] for match in matches for name in match["contestants"]
    }
    answers = [
        f"{name}: {who.note}" + (f" (`{who.xla_flags}`)" if who.xla_flags else "")
        for name, who in notes.items()
    ]
    return [*lines, "", "; ".join(answers) + "."]


def _best(device: str, matches: list[Match]) -> list[str]:
    """Each network's best speed of ours and of the peers, whatever the batch."""
    lines = [
        "| network | contestant | best batch | images/s | ours / it | of the bound |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(map(_kind, matches)):
        best: dict[str, tuple[float, Match]] = {}
        for match in matches:
            for name in match["contestants"] if _kind(match) == kind else ():
                found = _speed(match, name)
                if found and found.median > best.get(name, (0.0,))[0]:
                    best[name] = (found.median, match)
        for name, (images_per_second, match) in best.items():
            share = _share(device, match, images_per_second)
            against = best[OURS][0] / images_per_second if OURS in best and name != OURS else None
            held = kind == WANTED_OF and share is not None
            goal = (
                f" ({WANTED_SHARE:.0%} wanted, {AIMED_SHARE:.0%} aimed at)"
                if held and name == OURS
                else ""
            )
            least = f" (at least {WANTED_RATIO:g} wanted)" if held and name in COMPILED else ""
            cells = [
                ", ".join(map(str, kind)),
                name,
                match["problem"]["batch"],
                f"{images_per_second:,.1f}",
                f"{against:.2f}{least}" if against else "–",
                f"{share:.1%}{goal}" if share else "–",
            ]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _kind(match: Match) -> tuple[str, int, str]:
    """What a match trains, but for the batch."""
    problem = match["problem"]
    return problem["network"], problem["side"], problem["dtype"]


def _breakdown(match: Match) -> list[str]:
    """The kinds of kernels of our step, and the longest instructions."""
    problem, found = match["problem"], match["breakdown"]
    total = sum(found["categories"].values())
    lines = [
        (
            f"{problem['network']}, batch {problem['batch']}; {1e3 * found['span']:.2f} ms a step"
            f" from the first kernel to the last, of which kernels ran {1e3 * total:.2f} ms."
        ),
        "",
        "| kind | ms a step | share |",
        "|---|---|---|",
    ]
    rows = [(name, seconds) for name, seconds in found["categories"].items()]
    lines += [
        f"| {name} | {1e3 * seconds:.3f} | {seconds / (total or 1):.1%} |" for name, seconds in rows
    ]
    lines += ["", "| longest instructions | kind | ms a step |", "|---|---|---|"]
    return lines + [
        f"| {name} | {kind} | {1e3 * seconds:.3f} |" for name, kind, seconds in found["kernels"]
    ]
