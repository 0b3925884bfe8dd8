"""Several runs side by side: results, curves, and what is not the same in their recipes."""

from collections.abc import Sequence
from typing import Any

from resnet_jax.config import HARMLESS
from resnet_jax.report import learning, recipe
from resnet_jax.report.parts import Page, Section, Table
from resnet_jax.report.record import Record
from resnet_jax.training.reporting.curves import mean_and_deviation, over_seeds

_GROUPS_DRAWN, _LONGEST_NAME = 8, 3

# What may differ between runs of one recipe: it does not change what they learn, but for chance.
_NOT_THE_RECIPE = {"seed", *HARMLESS}


def compare(records: Sequence[Record]) -> Page:
    """Returns the page on several runs."""
    groups = _groups(records)
    curves_of = {
        name: [record.epochs for record in members if _is_scored(record)]
        for name, members in groups.items()
    }
    curves_of = {name: runs for name, runs in curves_of.items() if runs}
    first = dict(list(curves_of.items())[:_GROUPS_DRAWN])
    notes = [f"{record.name}: {record.status}." for record in records if not record.is_finished]
    if len(curves_of) > len(first):
        notes.append(f"The curves are those of the first {len(first)} of {len(curves_of)} recipes.")
    curves = (
        learning.comparison(first)
        if first
        else (Table("Curves", "", (), why="No run has been scored yet."),)
    )
    facts = {"runs": str(len(records)), "finished": str(sum(r.is_finished for r in records))}
    scored = [(best["top1"], record.name) for record in records if (best := record.best())]
    if scored:
        top1, name = max(scored, key=lambda pair: pair[0])
        facts |= {"best top-1": f"{100 * top1:.2f} %", "reached by": name}
    return Page(
        f"{len(records)} runs",
        ", ".join(dict.fromkeys(record.config.data.name for record in records)),
        facts,
        tuple(notes),
        (
            Section("results", "Results", (_results(records), _over_seeds(groups))),
            Section("curves", "Learning curves", curves),
            Section("recipes", "Recipes", (recipe.comparison(records),)),
        ),
    )


def _is_scored(record: Record) -> bool:
    return any("eval_top1" in epoch for epoch in record.epochs)


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Returns the runs by recipe, the seed left aside; a group is named by what is its own."""
    fields = {
        name: values
        for name, values in recipe.differing(records).items()
        if name not in _NOT_THE_RECIPE
    }
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for place, record in enumerate(records):
        values = (of_runs[place] for of_runs in fields.values())
        # A field of several numbers is a list in a run's recipe, and a list is no key.
        own = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        groups.setdefault(own, []).append(record)

    def label(own: tuple[Any, ...], first: Record) -> str:
        # Many differences are no name.
        if len(fields) > _LONGEST_NAME:
            return f"as {first.name}"
        pairs = zip(fields, own, strict=True)
        return ", ".join(f"{field}={value}" for field, value in pairs) or "all runs"

    return {label(own, members[0]): members for own, members in groups.items()}


def _results(records: Sequence[Record]) -> Table:
    rows = []
    for record in records:
        best = record.best()
        last = record.evaluations[-1] if record.evaluations else None
        rows.append(
            (
                record.name,
                "" if best is None else f"{best['top1']:.4f}",
                "" if best is None else f"{best['epoch']:g}",
                "" if last is None else f"{last['top1']:.4f}",
                "" if last is None else f"{last['loss']:.4f}",
                f"{record.epochs[-1]['seconds']:,.0f}" if record.epochs else "",
                record.status,
            )
        )
    return Table(
        "Each run",
        "The best evaluation is that of the best checkpoint (config.checkpoint.best_metric). It was"
        " chosen by these scores, and is a little too good for that; the last one was not.",
        (
            "run",
            "top-1 of the best",
            "at epoch",
            "last top-1",
            "last loss",
            "training time, s",
            "status",
        ),
        rows,
    )


def _over_seeds(groups: dict[str, list[Record]]) -> Table:
    rows = []
    for name, members in groups.items():
        done = [record.epochs for record in members if record.is_finished and _is_scored(record)]
        if len(done) > 1:
            found = over_seeds(done)
            loss = mean_and_deviation([epochs[-1]["eval_loss"] for epochs in done])
            rows.append(
                (name, found["n"], found["top-1"], loss, f"{found['training time (s)']:,.0f}")
            )
    return Table(
        "Over seeds",
        "Mean and sample deviation of the scores after the last step, median of the times, over"
        " finished runs that differ in the seed alone.",
        ("recipe", "runs", "top-1", "loss", "training time, s"),
        rows,
        "" if rows else "No two finished runs have the same recipe but for the seed.",
    )
