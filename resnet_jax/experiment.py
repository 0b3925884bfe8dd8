"""The parts of a recipe, made real: devices, data, network, schedule and the two steps."""

import dataclasses
import functools
import os
from collections.abc import Callable

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from resnet_jax import config as recipe
from resnet_jax import data
from resnet_jax.distributed.consensus import differing
from resnet_jax.distributed.mesh import make_mesh, replicated, shard_batch
from resnet_jax.distributed.runtime import computes_on_cpu, keep_freed_memory
from resnet_jax.errors import UserError
from resnet_jax.training import optimizer, schedule
from resnet_jax.training.loop import Plan
from resnet_jax.training.loss import LOSSES, make_loss
from resnet_jax.training.state import TrainState, create_state
from resnet_jax.training.step import make_eval_step, make_train_step

OWN_TO_A_PROCESS = {"data.dir", "data.num_threads", "data.prefetch"}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a recipe describes.

    Attributes:
      config: the recipe, with the fields filled that data and devices decide.
      mesh: all devices.
      model: the network.
      train_loader, eval_loader: this process's share of the two splits.
      peak_rate: the highest learning rate, scaled to the batch.
      rate: the learning rate of a step.
      optimizer: the update rule.
      plan: when things happen.
    """

    config: ConfigDict
    mesh: Mesh
    model: nn.Module
    train_loader: data.Loader
    eval_loader: data.Loader
    peak_rate: float
    rate: schedule.Schedule
    optimizer: optax.GradientTransformation
    plan: Plan

    def feed(self, loader: data.Loader, start: int, stop: int) -> data.Prefetcher:
        """Opens the batches `start` to `stop` of a loader, placed on the devices."""
        return open_feed(self.config, loader, self.mesh, start, stop)

    def create_state(self) -> TrainState:
        """Returns the state before the first step, the same on every device."""
        return create_state(
            self.model,
            self.optimizer,
            self.train_loader.image_shape,
            seed=self.config.seed,
            sharding=replicated(self.mesh),
            float16=self.config.precision == "float16",
        )

    def train_step(self):
        """Returns the jitted training step, see `make_train_step`."""
        return make_train_step(
            self.model,
            self.optimizer,
            make_augment(self.config, self.train_loader),
            make_loss(self.config.loss),
            self.rate,
            self.mesh,
            seed=self.config.seed,
            accumulate_steps=self.config.accumulate_steps,
        )

    def eval_step(self):
        """Returns the jitted evaluation step, see `make_eval_step`."""
        return eval_step(self.config, self.model, self.eval_loader, self.mesh)


def assemble(config: ConfigDict, say: Callable[[str], None] | None = None) -> Experiment:
    """Opens the data and builds everything up to the state; `prepare_runtime` comes first.

    Args:
      config: a valid recipe.
      say: told of each image that is skipped.

    Raises:
      UserError: the data is missing, or the batch does not divide over the devices.
    """
    mesh = make_mesh()
    _check_batch(config, mesh.size)
    train_loader, eval_loader = (
        make_loader(config, mesh, train=train, say=say) for train in (True, False)
    )
    check_processes(config, train_loader.source, eval_loader.source)
    config = resolve(config, train_loader)
    total_steps = round(config.num_epochs * len(train_loader))
    if total_steps < 1:
        raise UserError(
            f"config.num_epochs = {config.num_epochs}: less than one step; an epoch has"
            f" {len(train_loader)} steps"
        )
    peak = schedule.peak_rate(config.schedule, config.batch_size, config.optimizer.name)
    rate = schedule.make_schedule(config.schedule, peak, len(train_loader), total_steps)
    return Experiment(
        config=config,
        mesh=mesh,
        model=recipe.build_model(config),
        train_loader=train_loader,
        eval_loader=eval_loader,
        peak_rate=peak,
        rate=rate,
        optimizer=optimizer.make_optimizer(config.optimizer, rate),
        plan=Plan(
            batch_size=config.batch_size,
            steps_per_epoch=len(train_loader),
            total_steps=total_steps,
            eval_every_epochs=config.eval_every_epochs,
            save_every_epochs=config.checkpoint.every_epochs,
            log_every_steps=config.log_every_steps,
        ),
    )


def prepare_runtime(config: ConfigDict) -> None:
    """Sets what is read once, as JAX finds its devices: asking whether this process leads is
    already too late.

    Compiled programs are kept in the user's cache directory, never in a workdir: they are
    executable code, which a shared or downloaded workdir must not bring along.
    JAX_COMPILATION_CACHE_DIR names another directory, and JAX_ENABLE_COMPILATION_CACHE=false keeps
    none.
    """
    flags, flag = os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"
    if config.deterministic and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    jax.config.update("jax_enable_x64", config.precision == "float64")
    if not jax.config.jax_compilation_cache_dir:
        user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update(
            "jax_compilation_cache_dir", os.path.join(user_cache, "resnet_jax", "xla")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if computes_on_cpu():
        keep_freed_memory()


def make_loader(
    config: ConfigDict, mesh: Mesh, *, train: bool, say: Callable[[str], None] | None = None
) -> data.Loader:
    """Opens a split and batches it for this process; `say` is told of each image that is skipped.

    Raises:
      UserError: the data is missing, or too small for a batch.
    """
    return data.Loader(
        data.open_source(config.data, train=train, seed=config.seed),
        config.data,
        batch_size=config.batch_size if train else config.eval_batch_size or config.batch_size,
        seed=config.seed,
        train=train,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        pad_to=mesh.size,
        say=say,
    )


def open_feed(
    config: ConfigDict, loader: data.Loader, mesh: Mesh, start: int, stop: int
) -> data.Prefetcher:
    """Opens the batches `start` to `stop` of a loader, placed on the devices of a mesh."""
    return data.Prefetcher(
        loader, start, stop, functools.partial(shard_batch, mesh), config.data.prefetch
    )


def make_augment(config: ConfigDict, loader: data.Loader):
    """Returns the device's part of a loader's data path."""
    return data.make_augment(
        config.data,
        loader.source,
        loader.train,
        config.model.num_classes,
        config.seed,
        dtype=recipe.PRECISIONS[config.precision][1],
    )


def eval_step(config: ConfigDict, model: nn.Module, loader: data.Loader, mesh: Mesh):
    """Returns the jitted evaluation step; the loss is that of training without label smoothing."""
    return make_eval_step(model, make_augment(config, loader), LOSSES[config.loss.name], mesh)


def resolve(config: ConfigDict, loader: data.Loader) -> ConfigDict:
    """Fills the fields that the training data and the devices decide, so that a run keeps them.

    Raises:
      UserError: the network has fewer classes than the data.
    """
    config = recipe.from_json(recipe.to_json(config))
    if config.precision == "auto":
        config.precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    classes = len(loader.source.classes)
    if config.model.num_classes is None:
        config.model.num_classes = classes
    elif config.model.num_classes < classes:
        raise UserError(
            f"config.model.num_classes = {config.model.num_classes}: {loader.source.name} has"
            f" {classes} classes; leave it None"
        )
    height, width = loader.image_shape[:2]
    if height == width:  # others have a size of their own, which the field cannot say
        config.data.image_size = height
    if config.data.mean is None:
        config.data.mean, config.data.std = loader.source.moments()
    return config


def check_processes(config: ConfigDict, *sources: data.Source) -> None:
    """Checks that all processes have one recipe and one data set, wherever it lies for each of
    them; a barrier.

    Raises:
      UserError: one has another than process 0; in every process.
    """
    fields = {name: value for name, value in recipe.flatten(config) if name not in OWN_TO_A_PROCESS}
    described = [(source.split, len(source), source.classes) for source in sources]
    if others := differing(repr((fields, described))):
        raise UserError(
            f"another recipe or other data than process 0 in process {', '.join(map(str, others))}:"
            " give all the same command, a --workdir that all of them see, and the same files in"
            f" config.data.dir (here {config.data.dir!r}:"
            f" {', '.join(f'{len(source)} {source.split} images' for source in sources)})"
        )


def _check_batch(config: ConfigDict, devices: int) -> None:
    if config.batch_size % devices:
        near = max(devices, round(config.batch_size / devices) * devices)
        raise UserError(
            f"config.batch_size = {config.batch_size}: must be divisible by the {devices} devices,"
            f" for example {near}"
        )
    if config.batch_size // devices % config.accumulate_steps:
        raise UserError(
            f"config.accumulate_steps = {config.accumulate_steps}: must divide the"
            f" {config.batch_size // devices} images of each device"
        )
