"""An experiment: a recipe made real, from devices and data to the two compiled steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data, resolution
from resnet_jax.distributed.mesh import (
    jit_step,
    make_mesh,
    put_replicated,
    replicated,
    shard_batch,
)
from resnet_jax.errors import UserError
from resnet_jax.initial import Initial, begin_from, read_initial
from resnet_jax.models import ResNet
from resnet_jax.models.depths import module_depths
from resnet_jax.models.frozen_norms import hold_norms
from resnet_jax.seeds import seed_words
from resnet_jax.teacher import Teacher
from resnet_jax.training import schedule, step
from resnet_jax.training.average import Average, make_move
from resnet_jax.training.loss import LOSSES, make_loss
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.param_groups import ParamGroups
from resnet_jax.training.plan import Phase, Plan
from resnet_jax.training.state import LossScale, TrainState


class Experiment:
    """What a recipe describes. Each part is made when it is first asked for.

    `distributed.runtime.prepare_runtime` comes before, since JAX reads its flags once.

    Args:
      config: a valid recipe.
      say: told of each image that is skipped.

    Attributes:
      config: the recipe; of `for_training` with the fields filled that data and devices decide.
      mesh: all devices.
      notes: lines that a person should know of how the run begins.
    """

    def __init__(self, config: ConfigDict, say: Callable[[str], None] | None = None):
        self.config = config
        self.mesh = make_mesh()
        self.notes: list[str] = []
        self._say = say
        self._initial: Initial | None = None
        self._teacher: Teacher | None = None

    @classmethod
    def for_training(
        cls, config: ConfigDict, say: Callable[[str], None] | None = None
    ) -> "Experiment":
        """Opens both splits, checks that they and the devices fit the recipe, and resolves it.

        Raises:
          UserError: the data is missing or another one in another process, the batch does not
            divide over the devices, or the run has no whole step.
        """
        experiment = cls(config, say)
        config_lib.check_batch(config, experiment.mesh.size)
        resolution.check_processes(config, experiment.train_loader, experiment.eval_loader)
        experiment.resolve()
        if experiment.plan.total_steps < 1:
            raise UserError(
                f"config.num_epochs = {config.num_epochs}: less than one step; an epoch has "
                f"{len(experiment.train_loader)} steps"
            )
        return experiment

    @functools.cached_property
    def train_loader(self) -> data.Loader | data.ProgressiveLoader:
        """This process's share of the training split."""
        config = self.config
        files: list[data.Source] = []

        def open_at(size: int | None, say: Callable[[str], None] | None) -> data.Loader:
            sized = config if size is None else _of_size(config, size)
            # Images in memory are made to size; files serve any, and listing them takes minutes.
            source = files[0] if files else data.open_source(sized.data, train=True, say=say)
            if source.image_shape is None:
                files[:] = [source]
            return self._load(source, sized, say, train=True)

        return data.grown(open_at, config.data, self._say)

    @functools.cached_property
    def eval_loader(self) -> data.Loader:
        """This process's share of the evaluation split."""
        source = data.open_source(self.config.data, train=False, say=self._say)
        return self._load(source, self.config, self._say, train=False)

    def batches(
        self, loader: data.Loader | data.ProgressiveLoader, start: int, stop: int
    ) -> data.Prefetcher:
        """Opens the batches `start` to `stop` of a loader, made ahead and placed on the devices."""
        put = functools.partial(shard_batch, self.mesh)
        return data.Prefetcher(loader, start, stop, put, self.config.data.prefetch)

    @functools.cached_property
    def model(self) -> ResNet:
        return config_lib.build_model(self.config)

    @functools.cached_property
    def plan(self) -> Plan:
        """When things happen."""
        steps_per_epoch = len(self.train_loader)
        return Plan(
            batch_size=self.config.batch_size,
            steps_per_epoch=steps_per_epoch,
            total_steps=round(self.config.num_epochs * steps_per_epoch),
            eval_every_epochs=self.config.eval_every_epochs,
            save_every_epochs=self.config.checkpoint.every_epochs,
            log_every_steps=self.config.log_every_steps,
            stop_at_top1=self.config.stop_at_top1,
        )

    @property
    def peak_rate(self) -> float:
        """The highest learning rate, scaled to the batch."""
        config = self.config
        return schedule.peak_rate(config.schedule, config.batch_size, config.optimizer.name)

    @functools.cached_property
    def schedule(self) -> schedule.Schedule:
        """The learning rate of a step."""
        plan = self.plan
        return schedule.make_schedule(
            self.config.schedule, self.peak_rate, plan.steps_per_epoch, plan.total_steps
        )

    @functools.cached_property
    def groups(self) -> ParamGroups | None:
        """Which parameters are frozen, and at what rates the others train; None: all alike."""
        optimizer = self.config.optimizer
        if not (optimizer.freeze or optimizer.rates or optimizer.layer_decay):
            return None
        params = self.param_shapes
        return ParamGroups.create(optimizer, params, module_depths(params))

    @functools.cached_property
    def param_shapes(self) -> Any:
        """The shapes of the network's parameters."""
        images = jax.ShapeDtypeStruct((1, *self.train_loader.image_shape), jnp.float32)
        return jax.eval_shape(self.model.init, jax.random.key(0), images)["params"]

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return make_optimizer(self.config.optimizer, self.schedule, self.groups)

    @functools.cached_property
    def augment(self) -> step.Augment:
        """(batch, seed words) -> images and targets, on the device."""
        return data.make_augment(
            self.config.data,
            self.train_loader.source,
            self.config.model.num_classes,
            dtype=self._param_dtype,
        )

    def random_variables(self) -> dict[str, Any]:
        """Returns {"params", "batch_stats"} of the recipe's seed, the same on every device."""

        def init(key: jax.Array) -> dict[str, Any]:
            images = jnp.zeros((1, *self.train_loader.image_shape))
            return {"batch_stats": {}, **self.model.init(key, images, train=False)}

        return self._jit_once(init)(jax.random.key(self.config.seed))

    def initial_variables(self) -> dict[str, Any]:
        """Returns what training starts from: `random_variables`, with `init.weights` put in."""
        drawn, init, loader = self.random_variables(), self.config.init, self.train_loader
        if init.weights is None:
            return drawn
        # A run that is there has them read only where it turns out to have no checkpoint left.
        initial = self._initial or read_initial(self.config, loader.image_shape[2])
        variables, line = begin_from(initial, drawn, self.model, init.head, loader.source.classes)
        self.notes.append(line)
        return put_replicated(self.mesh, variables)

    def create_state(self, *, for_checkpoint: bool = False) -> TrainState:
        """Returns the state before the first step; `for_checkpoint` reads no `init.weights`."""

        def create(variables: dict[str, Any], words: jax.Array) -> TrainState:
            return TrainState(
                step=jnp.zeros((), jnp.int32),
                params=variables["params"],
                batch_stats=variables["batch_stats"],
                opt_state=self.optimizer.init(variables["params"]),
                loss_scale=LossScale.create() if self.config.precision == "float16" else None,
                seed=words,
                ema=Average.create(**variables) if self.config.ema.decay else None,
            )

        variables = self.random_variables() if for_checkpoint else self.initial_variables()
        state = self._jit_once(create, donate_argnums=0)(variables, seed_words(self.config.seed))
        if self._teacher is None:
            return state
        return state.replace(
            teacher=put_replicated(self.mesh, jax.device_get(self._teacher.variables))
        )

    @property
    def train_step(self) -> Any:
        """The jitted (state, batch) -> (state, `step.Metrics`) of the first step; see `phases`."""
        return self.phases[0].step

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The stretches of the run, one after another."""
        parts, total = self.config.accumulate_steps, self.plan.total_steps
        frozen = self.groups.freeze_steps(self.plan.steps_per_epoch, total) if self.groups else 0
        steps = {
            is_frozen: self.make_train_step(parts, is_frozen=is_frozen)
            for is_frozen in {frozen > 0, frozen == total}
        }
        shapes = self.train_loader.stretches(total)
        ends = sorted({frozen, *(end for end, _ in shapes)} - {0})
        return tuple(
            Phase(
                end,
                steps[end <= frozen],
                next(shape for last, shape in shapes if end <= last),
                is_frozen=end <= frozen,
            )
            for end in ends
        )

    def make_train_step(self, accumulate_steps: int, *, is_frozen: bool = False) -> Any:
        """Returns a training step that donates the state.

        Args:
          accumulate_steps: how many parts a batch goes through in.
          is_frozen: whether it leaves the frozen parameters as they are; then it computes no
            gradient for them.
        """
        groups = self.groups if is_frozen else None
        # Where `model.norm_frozen` does not say, statistics stay as long as their layer does.
        holds = groups and self.config.model.norm_frozen is None and groups.is_frozen
        function = functools.partial(
            step.train_step,
            model=hold_norms(self.model, self.param_shapes, holds) if holds else self.model,
            optimizer=make_optimizer(
                self.config.optimizer, self.schedule, self.groups, is_frozen=is_frozen
            ),
            augment=self.augment,
            loss=make_loss(self.config.loss),
            schedule=self.schedule,
            accumulate_steps=accumulate_steps,
            frozen=groups.frozen(self.param_shapes) if groups else None,
            distillation=self._teacher.distillation(self.config) if self._teacher else None,
            move_average=make_move(self.config.ema, self.plan.steps_per_epoch),
        )
        return jit_step(self.mesh, function, donate_argnums=0)

    @functools.cached_property
    def eval_step(self) -> Any:
        """The jitted (variables, batch) -> `step.EvalMetrics`; its loss has no label smoothing."""
        function = functools.partial(
            step.eval_step,
            model=self.model,
            normalise=data.make_normalise(
                self.config.data, self.eval_loader.source, dtype=self._param_dtype
            ),
            loss=LOSSES[self.config.loss.name],
        )
        return jit_step(self.mesh, function)

    def resolve(self) -> None:
        """Fills the fields that the training data and the devices decide; see `resolution`."""
        self.config, self._initial, self._teacher = resolution.resolve(
            self.config, self.train_loader
        )
        if self._initial is None:
            return
        mean, std = self.train_loader.moments()
        if (*self.config.data.mean, *self.config.data.std) != (*mean, *std):
            # They were opened before the moments of `init.weights` were known, by which images are
            # normalised and what a rotation leaves empty is filled, here and after a resume.
            for name in {"train_loader", "eval_loader"} & self.__dict__.keys():
                self.__dict__.pop(name).close()

    def _load(
        self,
        source: data.Source,
        config: ConfigDict,
        say: Callable[[str], None] | None,
        *,
        train: bool,
    ) -> data.Loader:
        return data.Loader(
            source,
            config.data,
            batch_size=config.batch_size if train else config.eval_batch_size or config.batch_size,
            seed=config.seed,
            train=train,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            pad_to=self.mesh.size,
            say=say,
        )

    @property
    def _param_dtype(self) -> str:
        return config_lib.PRECISIONS[self.config.precision][1]

    def _jit_once(self, function: Callable, **options: Any) -> Any:
        """Compiles a program that runs once and whose results are the same on every device."""
        if jax.default_backend() == "cpu":
            # XLA:CPU takes about a second to optimise each draw of random numbers.
            options["compiler_options"] = {"xla_backend_optimization_level": 1}
        return jax.jit(function, out_shardings=replicated(self.mesh), **options)


def _of_size(config: ConfigDict, size: int) -> ConfigDict:
    """Returns a copy of a recipe with another size of training images."""
    copy = config_lib.copy_of(config)
    copy.data.image_size = size
    return copy
