"""The page on one run."""

import math

from resnet_jax.models import zoo
from resnet_jax.models.analysis.counting import count_params
from resnet_jax.report import answers, learning, network, recipe, speed
from resnet_jax.report.asking import NOT_THERE, Asked
from resnet_jax.report.parts import Page, Section
from resnet_jax.report.record import Record


def describe(record: Record, asked: Asked) -> Page:
    """Returns the page on a run.

    Args:
      record: what it has logged.
      asked: its network.
    """
    config = record.config
    command = recipe.command(record)
    return Page(
        record.name,
        f"{zoo.describe(config.model)}, trained on {config.data.name}",
        _facts(record, asked),
        _notes(record, asked),
        (
            Section("learning", "Learning", learning.figures(record)),
            Section(
                "answers", "Answers",
                (*answers.figures(asked), *answers.galleries(asked)),
                f"Of the checkpoint of step {asked.step:,}.",
            ),
            Section("network", "Network", network.parts(asked)),
            Section("speed", "Speed", speed.figures(record)),
            Section(
                "recipe", "Recipe and environment",
                (*recipe.tables(record), recipe.environment(record)),
                "The last start:" if command else "The command was not noted.",
                command,
            ),
        ),
    )  # fmt: skip


def _facts(record: Record, asked: Asked) -> dict[str, str]:
    scores = asked.scores or record.evaluation(asked.step)
    facts = {}
    if scores:
        facts |= {
            "top-1": f"{100 * scores['top1']:.2f} %",
            "top-5": f"{100 * scores['top5']:.2f} %",
            "loss": f"{scores['loss']:.4f}",
        }
    if "calibration_error" in asked.scores:
        facts["calibration error"] = f"{100 * asked.scores['calibration_error']:.2f} %"
    facts |= {"step": f"{asked.step:,}", "parameters": f"{count_params(asked.variables):,}"}
    if record.epochs:
        seconds = record.epochs[-1]["seconds"]
        images = record.epochs[-1]["step"] * record.config.batch_size
        if seconds and math.isfinite(seconds):
            facts |= {"images/s": f"{images / seconds:,.0f}", "training": speed.duration(seconds)}
    noted = record.last_start.get("goodput")
    if noted:
        facts["goodput"] = f"{100 * noted['shares'].get(speed.STEPS, 0):.0f} %"
    return facts


def _notes(record: Record, asked: Asked) -> tuple[str, ...]:
    notes = [f"The run: {record.status}."]
    if asked.why_gone is not None:
        count = 0 if asked.answers is None else sum(map(len, asked.answers.labels))
        kept = f"Shown are {count} that the run kept." if count else "The run kept none."
        notes.append(f"{NOT_THERE}: {asked.why_gone}. {kept} --data_dir names another place.")
    elif asked.scores and (scored := record.evaluation(asked.step)) is not None:
        found, logged = asked.scores["top1"], scored["top1"]
        if abs(found - logged) > 1e-6:
            notes.append(
                f"Scored here this checkpoint has top-1 {found:.4f}, in the run {logged:.4f}:"
                " another device or version rounds otherwise, or the network is another."
            )
    if asked.answers is not None and any((part < 0).any() for part in asked.answers.predictions):
        notes.append("For some images the network's answer is no number.")
    return tuple(notes)
