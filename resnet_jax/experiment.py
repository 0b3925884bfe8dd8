"""An experiment: a recipe made real, from devices and data to the two compiled steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from resnet_jax import config as config_lib
from resnet_jax import data
from resnet_jax.distributed.consensus import differing
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
from resnet_jax.training import schedule, step
from resnet_jax.training.loss import LOSSES, make_loss
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.param_groups import ParamGroups
from resnet_jax.training.plan import Plan
from resnet_jax.training.state import LossScale, TrainState

# Where a process finds its data, and how it reads them, changes nothing that is learned.
OWN_TO_A_PROCESS = {"data.dir", "data.num_threads", "data.prefetch"}


class Experiment:
    """What a recipe describes. Each part is made when it is first asked for.

    `distributed.runtime.prepare_runtime` comes before, since JAX reads its flags once.

    Args:
      config: a valid recipe.
      say: told of each image that is skipped.

    Attributes:
      config: the recipe; after `resolve`, with the fields filled that data and devices decide.
      mesh: all devices.
      notes: lines that a person should know of how the run begins.
    """

    def __init__(self, config: ConfigDict, say: Callable[[str], None] | None = None):
        self.config = config
        self.mesh = make_mesh()
        self.notes: list[str] = []
        self._say = say
        self._initial: Initial | None = None

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
        experiment.check_processes(experiment.train_loader, experiment.eval_loader)
        experiment.resolve()
        if experiment.plan.total_steps < 1:
            raise UserError(
                f"config.num_epochs = {config.num_epochs}: less than one step; an epoch has "
                f"{len(experiment.train_loader)} steps"
            )
        return experiment

    @functools.cached_property
    def train_loader(self) -> data.Loader:
        """This process's share of the training split."""
        return self._open(train=True)

    @functools.cached_property
    def eval_loader(self) -> data.Loader:
        """This process's share of the evaluation split."""
        return self._open(train=False)

    def batches(self, loader: data.Loader, start: int, stop: int) -> data.Prefetcher:
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
            )

        variables = self.random_variables() if for_checkpoint else self.initial_variables()
        return self._jit_once(create, donate_argnums=0)(variables, seed_words(self.config.seed))

    @property
    def train_step(self) -> Any:
        """The jitted (state, batch) -> (state, `step.Metrics`) of the first step; see `phases`."""
        return self.phases[0][1]

    @functools.cached_property
    def phases(self) -> tuple[tuple[int, Any], ...]:
        """The training steps of a run, each with the number of the first step it does not take."""
        parts, total = self.config.accumulate_steps, self.plan.total_steps
        frozen = self.groups.freeze_steps(self.plan.steps_per_epoch, total) if self.groups else 0
        ends = {frozen: True, total: frozen == total}
        return tuple(
            (end, self.make_train_step(parts, is_frozen=is_frozen))
            for end, is_frozen in ends.items()
            if end
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
        )
        return jit_step(self.mesh, function, donate_argnums=0)

    @functools.cached_property
    def eval_step(self) -> Any:
        """The jitted (variables, batch) -> `step.Metrics`; its loss has no label smoothing."""
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
        """Fills the fields that the training data and the devices decide, so that a run keeps them.

        Raises:
          UserError: the network has fewer classes than the data.
        """
        config = config_lib.from_json(config_lib.to_json(self.config))
        if config.precision == "auto":
            config.precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
        source, classes = self.train_loader.source, len(self.train_loader.source.classes)
        if config.model.num_classes is None:
            config.model.num_classes = classes
        elif config.model.num_classes < classes:
            raise UserError(
                f"config.model.num_classes = {config.model.num_classes}: {source.name} has "
                f"{classes} classes; leave it None"
            )
        # A run that is there has both fields filled, and may do without the weights.
        if config.init.weights is not None and None in (config.init.digest, config.data.mean):
            self._initial = read_initial(config, self.train_loader.image_shape[2])
        height, width = self.train_loader.image_shape[:2]
        if height == width:  # others have a size of their own, which the field cannot say
            config.data.image_size = height
        if config.data.mean is None:
            config.data.mean, config.data.std = source.moments()
        config.data.holdout = source.holdout
        self.config = config

    def check_processes(self, *loaders: data.Loader) -> None:
        """Checks that all processes have one recipe and one data set, wherever it lies; a barrier.

        Raises:
          UserError: one has another than process 0; in every process.
        """
        sources = [loader.source for loader in loaders]
        flat = config_lib.flatten(self.config)
        fields = {name: value for name, value in flat if name not in OWN_TO_A_PROCESS}
        described = [(source.split, data.fingerprint(source)["digest"]) for source in sources]
        if others := differing(repr((fields, described))):
            raise UserError(
                f"another recipe or other data than process 0 in process "
                f"{', '.join(map(str, others))}: give all the same command, a --workdir that all "
                f"of them see, and the same files in config.data.dir (here "
                f"{self.config.data.dir!r}: "
                f"{', '.join(f'{len(source)} {source.split} images' for source in sources)})"
            )

    def _open(self, train: bool) -> data.Loader:
        config = self.config
        return data.Loader(
            data.open_source(config.data, train=train, seed=config.seed, say=self._say),
            config.data,
            batch_size=config.batch_size if train else config.eval_batch_size or config.batch_size,
            seed=config.seed,
            train=train,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            pad_to=self.mesh.size,
            say=self._say,
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
