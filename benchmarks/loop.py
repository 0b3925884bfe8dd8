"""What the training loop adds to the bare step, and what a start costs.

    python -m benchmarks.loop --output results

measures, with the code of the training command itself: the loop and its evaluation beside bare
steps on one batch, what a checkpoint costs, how much a second start compiles, and where the time up
to the first step goes. With --output it writes loop.md and loop.json there. Whatever is compared
alternates in one process; medians are reported.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import contest, loop_start, loop_steps
from benchmarks.loop_steps import settings
from benchmarks.run_logs import command_line
from resnet_jax.experiment import prepare_runtime

EPOCH_SECONDS = 60.0
RESNET18 = {
    "data__image_size": 28,
    "model__stem": "imagenet",
    "model__width": 64,
    "model__stage_sizes": (2, 2, 2, 2),
}
VERDICTS = {True: "met", False: "**missed**", None: "not resolved"}
LARGE, SMALL = "ResNet-18, 28x28x1, batch 64", "ResNet-8, 8x8x1, batch 64"


def measure(rounds: int, starts: int) -> dict[str, Any]:
    """Measures everything; `rounds` pairs of stretches each, `starts` processes of each kind."""
    return {
        "loop": {
            LARGE: loop_steps.time_loop(settings(**RESNET18), rounds=rounds),
            SMALL: loop_steps.time_loop(settings(), rounds=2 * rounds, epochs=4),
            "no network: a step that does nothing": loop_steps.time_loop(
                settings(), rounds=2 * rounds, epochs=20, hollow=True
            ),
        },
        "evaluation": {
            LARGE: loop_steps.time_evaluation(
                settings(data__eval_split="train", **RESNET18), rounds=2 * rounds
            ),
            SMALL: loop_steps.time_evaluation(
                settings(data__eval_split="train"), rounds=4 * rounds
            ),
        },
        "save": loop_steps.time_saves(settings(**RESNET18), rounds=rounds),
        "starts": measure_starts([loop_start.QUICKSTART], starts),
        "imports": measure_imports(starts),
    }


def measure_starts(
    arguments: list[str], count: int, steps: int = 30
) -> dict[str, list[dict[str, Any]]]:
    """Starts a recipe with an empty cache, goes on with that run, and starts `count` runs of it
    anew.
    """
    with tempfile.TemporaryDirectory() as folder:

        def start(workdir: str) -> dict[str, Any]:
            return loop_start.start(
                [*arguments, f"--workdir={folder}/{workdir}"], steps=steps, cache=f"{folder}/cache"
            )

        return {
            "first": [start("first")],
            "resumed": [start("first")],
            "second": [start(f"second{number}") for number in range(count)],
        }


def measure_imports(count: int) -> dict[str, float]:
    """Median seconds of imports and of `--help`, each in `count` processes of its own, in turn."""
    kinds: dict[str, Callable[[], float]] = {
        "import jax, flax.linen": lambda: loop_start.import_seconds("import jax, flax.linen"),
        "import resnet_jax": lambda: loop_start.import_seconds("import resnet_jax"),
        "python launch.py --help": loop_start.help_seconds,
    }
    samples = [{name: take() for name, take in kinds.items()} for _ in range(count)]
    return {name: statistics.median(sample[name] for sample in samples) for name in kinds}


def judge(measured: dict[str, Any]) -> list[tuple[str, str, str, bool | None]]:
    """Returns (what, wanted, measured, whether it is met) for every value that is promised.

    What compares has two estimates, the median of the rounds' and that of the fastest: None where
    they disagree.
    """

    def within(both: tuple[float, float], limit: float, form: str) -> tuple[str, str, bool | None]:
        met = {value <= limit for value in both}
        return (
            f"at most {limit:{form}}",
            f"{both[0]:{form}}, fastest {both[1]:{form}}",
            met.pop() if len(met) == 1 else None,
        )

    def ratio(result: dict[str, Any], limit: float) -> tuple[str, str, bool | None]:
        return within((result["ratio"], result["ratio_of_fastest"]), limit, ".3f")

    loop, evaluation, save = (
        measured["loop"][LARGE],
        measured["evaluation"][LARGE],
        measured["save"],
    )
    in_loop = [name for result in measured["loop"].values() for name in result["compiled_in_loop"]]
    in_evaluation = [
        name for result in measured["evaluation"].values() for name in result["compiled"]
    ]
    shares = save["extra_seconds"] / EPOCH_SECONDS, save["extra_of_fastest"] / EPOCH_SECONDS
    over = measured["imports"]["import resnet_jax"] - measured["imports"]["import jax, flax.linen"]
    misses = {
        kind: max(start["misses"] for start in measured["starts"][kind])
        for kind in ("resumed", "second")
    }
    return [
        (f"loop / bare step, {LARGE}", *ratio(loop, 1.03)),
        (f"evaluation / bare inference, {LARGE}", *ratio(evaluation, 1.05)),
        ("programs compiled in the loop", "0", str(len(in_loop)), not in_loop),
        (
            (
                f"programs compiled for a last batch of {evaluation['last_batch']} of"
                f" {evaluation['batch_size']}"
            ),
            "0",
            str(len(in_evaluation)),
            not in_evaluation,
        ),
        (f"a save's cost, of a {EPOCH_SECONDS:g} s epoch", *within(shares, 0.01, ".2%")),
        *(
            (
                f"cache misses, {'run resumed' if kind == 'resumed' else 'second start'}",
                "0",
                str(count),
                not count,
            )
            for kind, count in misses.items()
        ),
        ("import resnet_jax over jax and flax", "below 2 s", f"{over:.2f} s", over < 2),
    ]


def page(host: dict[str, Any], measured: dict[str, Any], command: str) -> str:
    """The page: what was wanted, then the figures behind it."""
    versions = contest.say_versions(host["versions"])
    lines = [
        "# The loop and the start",
        "",
        f"`{command}` on {host['cores']} cores ({host['cpu']}; the device: {host['device']}), load",
        f"{host['load_before']:.1f} before the run; {versions}. Data in memory, float32 on CPUs.",
        "",
        "| what | wanted | measured | |",
        "|---|---|---|---|",
        *(
            f"| {what} | {wanted} | {value} | {VERDICTS[met]} |"
            for what, wanted, value, met in judge(measured)
        ),
        "",
        *_loop_lines(measured),
        "",
        *_save_lines(measured["save"]),
        "",
        *_start_lines(measured),
    ]
    return "\n".join(lines) + "\n"


def _loop_lines(measured: dict[str, Any]) -> list[str]:
    rows = [("training", name, result) for name, result in measured["loop"].items()]
    rows += [("evaluation", name, result) for name, result in measured["evaluation"].items()]
    return [
        "## Loop and bare step",
        "",
        (
            "Whole epochs of the training command, a line of the log at the end of each, beside as"
            " many steps on one batch"
        ),
        (
            "whose results nobody reads; ratios are medians of the rounds' own, with their range."
            " The overhead is that of"
        ),
        (
            "one step. With a step that does nothing it is all that the host does: a device whose"
            " step takes longer than"
        ),
        (
            "that is kept busy, since the host is a step ahead. The fastest stretch of each kind is"
            " the one that other"
        ),
        "processes on the machine disturbed least.",
        "",
        (
            "| | network | bare (ms) | in the loop (ms) | overhead (ms) | ratio | fastest / fastest"
            " | rounds |"
        ),
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {kind} | {name} | {result['bare_ms']:.2f} | {result['loop_ms']:.2f} |"
            f" {result['overhead_ms']:.2f} | "
            + (
                "{:.3f} ({:.3f} to {:.3f}) | {:.3f}".format(
                    result["ratio"], *result["ratio_range"], result["ratio_of_fastest"]
                )
                if result["bare_ms"] > 0.1
                else " | "
            )
            + f" | {result['rounds']} |"
            for kind, name, result in rows
        ),
    ]


def _save_lines(save: dict[str, Any]) -> list[str]:
    low, high = save["extra_range"]
    return [
        "## A checkpoint",
        "",
        (
            f"Of {LARGE}, {save['state_megabytes']:.0f} MB with momentum; epochs of"
            f" {save['epoch_seconds']:.1f} s with and"
        ),
        (
            f"without one, in alternation, {save['rounds']} pairs. The loop is held for"
            f" {save['held_seconds']:.3f} s; with"
        ),
        (
            "what the writing takes from the steps on the same cores it costs"
            f" {save['extra_seconds']:.2f} s ({low:.2f} to"
        ),
        (
            f"{high:.2f}; {save['extra_of_fastest']:.2f} between the fastest of each kind); it is"
            " committed"
        ),
        f"{save['committed_seconds']:.2f} s after it began.",
    ]


def _start_lines(measured: dict[str, Any]) -> list[str]:
    starts = measured["starts"]
    kinds = {"first": "first", "resumed": "resumed", "second": f"second ({len(starts['second'])})"}
    median = {
        kind: {
            name: statistics.median(start["parts"][name] for start in starts[kind])
            for name in starts[kind][0]["parts"]
        }
        for kind in kinds
    }
    whole = {
        kind: statistics.median(start["first_step_seconds"] for start in starts[kind])
        for kind in kinds
    }
    return [
        "## The start",
        "",
        (
            f"`python launch.py {loop_start.QUICKSTART}`, seconds from the start of the process to"
            " the end of the first"
        ),
        (
            "step: with an empty cache of compiled programs, going on with that run, and anew"
            " (medians)."
        ),
        "",
        f"| | {' | '.join(kinds.values())} |",
        "|---|---|---|---|",
        *(
            f"| {name} | {' | '.join(f'{median[kind][name]:.2f}' for kind in kinds)} |"
            for name in median["first"]
        ),
        f"| **to the first step** | {' | '.join(f'**{whole[kind]:.2f}**' for kind in kinds)} |",
        f"| programs | {' | '.join(str(starts[kind][0]['programs']) for kind in kinds)} |",
        (
            "| cache misses |"
            f" {' | '.join(str(max(s['misses'] for s in starts[kind])) for kind in kinds)} |"
        ),
        "",
        "Seconds of processes of their own: "
        + ", ".join(f"`{name}` {seconds:.2f}" for name, seconds in measured["imports"].items())
        + ".",
    ]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("jax", "jaxlib", "flax", "orbax-checkpoint")
    return {"device": jax.devices()[0].device_kind, **contest.machine(packages)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="pairs of stretches")
    parser.add_argument("--starts", type=int, default=5, help="processes of each kind")
    parser.add_argument(
        "--output",
        type=contest.output_folder,
        help="folder for the tables; nothing is written without it",
    )
    arguments = parser.parse_args()
    # Before anything asks for devices, as the commands themselves do it.
    prepare_runtime(settings())
    host, measured = machine(), measure(arguments.rounds, arguments.starts)
    text = page(host, measured, command_line(sys.argv))
    print(text)
    if arguments.output:
        (arguments.output / "loop.md").write_text(text)
        record = json.dumps({"machine": host, **measured}, indent=1)
        (arguments.output / "loop.json").write_text(record + "\n")


if __name__ == "__main__":
    main()
