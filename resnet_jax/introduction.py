"""What a person is told before and at the start of a run, a line for each thing."""

from collections.abc import Iterator, Mapping

from resnet_jax import config as config_lib
from resnet_jax import data
from resnet_jax.experiment import Experiment
from resnet_jax.models import zoo
from resnet_jax.models.analysis.summary import summarize
from resnet_jax.training import schedule


def rows(experiment: Experiment, workdir: str) -> Iterator[tuple[str, str]]:
    """Yields name and value of what a run is, each when it is known."""
    config, plan = experiment.config, experiment.plan
    train_source, eval_source = experiment.train_loader.source, experiment.eval_loader.source
    height, width, channels = experiment.train_loader.image_shape
    scored = experiment.eval_loader.image_shape
    at = "" if scored == (height, width, channels) else f", scored at {scored[0]}×{scored[1]}"
    yield (
        "data",
        f"{train_source.name}, {len(train_source):,} {train_source.split} and "
        f"{len(eval_source):,} {eval_source.split} images of {height}×{width}×{channels}{at}, "
        f"{len(train_source.classes)} classes",
    )
    summary = summarize(experiment.model, (height, width), channels)
    yield (
        "model",
        f"{zoo.describe(config.model)}: {summary.params:,} parameters, "
        f"{summary.macs / 1e6:,.1f} M multiply-adds, {config.precision}",
    )
    yield (
        "schedule",
        f"{config.num_epochs:g} epochs of {plan.steps_per_epoch:,} steps; "
        f"{config.optimizer.name}, {_rate(experiment)}, {_course(config.schedule)}"
        + (f", gradients of norm {clip:g} at most" if (clip := config.optimizer.clip_norm) else ""),
    )
    if config.data.progressive_sizes:
        stages = zip(config.data.progressive_sizes, config.data.progressive_epochs, strict=True)
        grown = ", ".join(f"{size} to epoch {end:g}" for size, end in stages)
        yield "sizes", f"images of {grown}, then {height}"
    if config.distill.teacher is not None:
        share, temperature = config.distill.weight, config.distill.temperature
        yield (
            "teacher",
            f"{config.distill.teacher} (SHA-256 {config.distill.digest[:12]}): its distance is"
            f" {share:g} of the loss, at temperature {temperature:g}",
        )
    parts = config.accumulate_steps
    yield (
        "batch",
        f"{config.batch_size} images, {config.batch_size // experiment.mesh.size} a device"
        + (f" in {parts} parts" if parts > 1 else ""),
    )
    if experiment.groups:
        yield from experiment.groups.table(experiment.param_shapes).items()
    if config.ema.decay:
        yield "average", _average(config.ema)
    yield "workdir", str(workdir)


def _rate(experiment: Experiment) -> str:
    """Says the peak rate and how it came about."""
    config, peak = experiment.config, experiment.peak_rate
    base_lr = config.schedule.base_lr
    if peak == base_lr:
        return f"peak rate {peak:g} = base_lr"
    base = schedule.base_batch_size(config.schedule, config.optimizer.name)
    return f"peak rate {peak:g} = base_lr {base_lr:g} x batch {config.batch_size} / {base}"


def _average(ema: Mapping) -> str:
    moves = "each step" if ema["every"] == 1 else f"every {ema['every']} steps"
    start = ema["start_epochs"]
    after = f", after {start:g} epochs" if start else ""
    scored = (
        "scored beside the parameters, which doubles an evaluation's cost"
        " (config.ema.score_both=False: alone)"
        if ema["score_both"]
        else "scored alone"
    )
    return f"decay {ema['decay']:g} {moves}{after}; {scored}"


def _course(settings: Mapping) -> str:
    course = settings["name"]
    if course == "step":
        drops = ", ".join(f"{boundary:g}" for boundary in settings["boundaries"])
        course = f"× {settings['factor']:g} at epochs {drops}"
    warmup = settings["warmup_epochs"]
    return course + (f", {warmup:g} epochs of warm-up" if warmup else "")


def warnings(experiment: Experiment) -> list[str]:
    """Returns a line for everything in the recipe that is allowed and seldom meant."""
    trained, scored = experiment.train_loader.source, experiment.eval_loader.source
    lines = config_lib.warnings(experiment.config)
    lines += schedule.warnings(experiment.config.schedule, experiment.config.num_epochs)
    ends, length = experiment.config.data.progressive_epochs, experiment.config.num_epochs
    if late := [end for end in ends if end >= length]:
        lines.append(
            f"data.progressive_epochs {late} lie at or past the last epoch ({length:g}): the sizes"
            " after them are never reached"
        )
    settings = experiment.config.optimizer
    if settings.freeze and (settings.freeze_epochs or 0) >= length:
        lines.append(
            f"optimizer.freeze_epochs = {settings.freeze_epochs:g} lies at or past the last epoch"
            f" ({length:g}): the frozen parameters never train"
        )
    if shared := data.count_shared(trained, scored):
        lines.append(
            f"{scored.split} is scored and {trained.split} trained on, which share {shared:,} "
            "images: the scores say nothing of other images"
        )
    return lines


def advice(experiment: Experiment) -> str:
    """Says what makes the steps of this recipe cheaper."""
    model, (height, width, _) = experiment.model, experiment.train_loader.image_shape
    changes = []
    if model.stem == "small" and max(height, width) > 64:
        changes.append('config.model.stem="imagenet", which works on maps of a 16th of the size')
    if max(height, width) > 32:
        changes.append(f"a smaller config.data.image_size than {max(height, width)}")
    changes.append(f"a smaller network than {experiment.config.model.name}")
    return " or ".join(changes)
