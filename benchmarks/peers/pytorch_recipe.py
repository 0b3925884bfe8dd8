"""A recipe trained in PyTorch on the CPU, beside which our own runs of it are set.

The peer begins with our initial parameters and sees our batches in our order, with our rates; the
draws of the augmentation and of dropout are its own.
"""

import statistics
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers import pytorch
from resnet_jax.config import flatten
from resnet_jax.data import Loader
from resnet_jax.experiment import Experiment
from resnet_jax.training.metrics import MetricSums

# Field of a recipe -> the values that the peer has.
SUPPORTED = {"accumulate_steps": (1,), "precision": ("float32",), "loss.name": ("softmax",)}
SUPPORTED |= {"optimizer.name": ("sgd",), "optimizer.decoupled": (False,), "data.cutmix": (0.0,)}
SUPPORTED |= {"data.random_resized_crop": (None, False), "data.random_erasing": (0.0,)}
SUPPORTED |= {"data.mixup": (0.0,)}


class Trainer:
    """Takes the steps of a recipe; raises `UserError` where it asks for what the peer lacks."""

    def __init__(self, experiment: Experiment):
        config = experiment.config
        pytorch.refuse_others(SUPPORTED, dict(flatten(config)).get, "config")
        torch.manual_seed(config.seed)
        self.network = pytorch.Network(experiment.model, experiment.initial_variables())
        self.network.to(memory_format=torch.channels_last)
        self._config, self._loader = config, experiment.train_loader
        self._rates = jax.vmap(experiment.schedule)(jnp.arange(experiment.plan.total_steps))
        moments = (255 * np.asarray(moment, np.float32) for moment in self._loader.moments())
        self._mean, self._std = map(torch.from_numpy, moments)
        weights, fields = list(self.network.parameters()), config.optimizer
        other_decay = fields.weight_decay if fields.decay_norm_and_bias else 0.0
        kernels, others = ([w for w in weights if (w.ndim > 1) == many] for many in (True, False))
        groups = [{"params": kernels}, {"params": others, "weight_decay": other_decay}]
        names = ("momentum", "nesterov", "weight_decay")
        self._optimizer = torch.optim.SGD(groups, **{name: fields[name] for name in names})

    def step(self, number: int) -> dict[str, float]:
        """Takes a step; returns the batch's sums as `MetricSums` adds them."""
        images, labels, _ = self._batch(self._loader, number)
        for group in self._optimizer.param_groups:
            group["lr"] = float(self._rates[number])
        self._optimizer.zero_grad(set_to_none=True)
        logits = self.network.train()(images)
        smoothed = {"label_smoothing": self._config.loss.label_smoothing}
        loss = functional.cross_entropy(logits, labels, **smoothed)
        loss.backward()
        self._optimizer.step()
        return sums(logits, labels, loss.item())

    @torch.inference_mode()
    def evaluate(self, loader: Loader) -> dict[str, float]:
        """Returns the means over a split, every image counted once."""
        found = MetricSums()
        for number in range(len(loader)):
            images, labels, rows = self._batch(loader, number)
            logits, labels = self.network.eval()(images)[rows], labels[rows]
            found.add(sums(logits, labels, functional.cross_entropy(logits, labels).item()))
        return found.means()

    def _batch(self, loader: Loader, number: int) -> tuple[torch.Tensor, ...]:
        """Returns images [N, C, H, W], normalised and in training augmented, labels and mask."""
        batch, fields = loader[number], self._config.data
        images = torch.from_numpy(batch["image"])
        if loader.train:
            flip = loader.source.image_shape is None if fields.flip is None else fields.flip
            images = augment(images, fields.pad_and_crop, flip)
        images = ((images.float() - self._mean) / self._std).permute(0, 3, 1, 2)
        images = images.contiguous(memory_format=torch.channels_last)
        return images, torch.from_numpy(batch["label"]).long(), torch.from_numpy(batch["mask"])


def sums(logits: torch.Tensor, labels: torch.Tensor, mean_loss: float) -> dict[str, float]:
    count, hits = len(labels), (logits.argmax(1) == labels).sum().item()
    return {"loss": mean_loss * count, "top1": hits, "top5": 0, "examples": count}


def augment(images: torch.Tensor, pixels: int, flip: bool) -> torch.Tensor:
    """Crops each image of [N, H, W, C] from itself in a black frame, and mirrors half of them."""
    count, height, width, _ = images.shape
    top, left = torch.randint(0, 2 * pixels + 1, (2, count, 1))
    mirrored = torch.rand(count, 1) < (0.5 if flip else 0.0)
    rows, columns = top + torch.arange(height), torch.arange(width).expand(count, width)
    columns = left + torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(images, (0, 0, pixels, pixels, pixels, pixels))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(experiment: Experiment) -> Iterator[dict[str, float]]:
    """Trains to the end and gives the line of each epoch, see `reporting.curves.Epochs`.

    The seconds are those of the steps with the making of their batches.
    """
    trainer, plan, times, means = Trainer(experiment), experiment.plan, [], MetricSums()
    seconds = steady = 0.0
    for step in range(1, plan.total_steps + 1):
        began = time.perf_counter()
        means.add(trainer.step(step - 1))
        times.append(time.perf_counter() - began)
        if plan.ends_epoch(step) or step == plan.total_steps:
            seconds, steady = seconds + sum(times), steady + statistics.median(times) * len(times)
            line = {"step": step, "epoch": plan.epoch(step)}
            line |= {"seconds": round(seconds, 2), "steady_seconds": round(steady, 2)}
            scores = {"train": means.means(), "eval": trainer.evaluate(experiment.eval_loader)}
            for split, found in scores.items():
                line |= {f"{split}_{kind}": round(found[kind], 5) for kind in ("loss", "top1")}
            yield line
            times, means = [], MetricSums()
