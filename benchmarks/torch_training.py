"""A recipe trained in PyTorch: the same network from the same parameters, data, order, schedule and
loss.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from benchmarks import torch_resnet
from resnet_jax.data import Loader
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment

# Field of a recipe -> the values that the peer has.
SUPPORTED = {
    "accumulate_steps": (1,),
    "precision": ("float32",),
    "optimizer.name": ("sgd",),
    "optimizer.decoupled": (False,),
    "loss.name": ("softmax",),
    "data.random_resized_crop": (None, False),
    "data.random_erasing": (0.0,),
    "data.mixup": (0.0,),
    "data.cutmix": (0.0,),
}


class Trainer:
    """Trains a recipe's network in PyTorch on the CPU.

    The peer sees the images that ours sees, in the same order; only the draws of the augmentation
    and of dropout are its own.

    Args:
      parts: the recipe's.
      variables: of our network, what the peer begins with; ours begins with
        `parts.create_state().variables`.

    Raises:
      UserError: the recipe asks for something that the peer lacks.
    """

    def __init__(self, parts: Experiment, variables: Mapping[str, Any]):
        check(parts)
        self._parts, self._config = parts, parts.config
        torch.manual_seed(self._config.seed)
        network = torch_resnet.Network(parts.model, parts.train_loader.image_shape[2])
        torch_resnet.load(network, variables)
        self.network = network.to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(self.network, self._config.optimizer)
        self._rates = np.asarray(jax.vmap(parts.rate)(jnp.arange(parts.plan.total_steps)))
        mean, std = (np.asarray(moment, np.float64) for moment in parts.train_loader.moments())
        self._shift, self._factor = (
            torch.tensor(255 * mean).float(),
            torch.tensor(1 / (255 * std)).float(),
        )

    def run(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Trains to the end, and after each epoch tells `report` how it stands.

        The record's "seconds" and "steady_seconds" count the training steps and the making of their
        batches up to here: as they were, and as if each step had taken the median of its epoch.
        """
        plan, loader = self._parts.plan, self._parts.train_loader
        seconds = steady = 0.0
        times, sums = [], {"loss": 0.0, "top1": 0, "examples": 0}
        for step in range(plan.total_steps):
            began = time.perf_counter()
            found = self.step(loader[step], self._rates[step])
            times.append(time.perf_counter() - began)
            sums = {name: total + found[name] for name, total in sums.items()}
            if not np.isfinite(found["loss"]):
                raise UserError(
                    f"the loss is not finite at step {step + 1}: lower config.schedule.base_lr"
                )
            if plan.ends_epoch(step + 1) or step + 1 == plan.total_steps:
                seconds += sum(times)
                steady += statistics.median(times) * len(times)
                record = {"step": step + 1, "epoch": plan.epoch(step + 1)}
                record |= {"seconds": round(seconds, 2), "steady_seconds": round(steady, 2)}
                record |= {
                    f"train_{kind}": round(sums[kind] / sums["examples"], 5)
                    for kind in ("loss", "top1")
                }
                report(record | self.evaluate(self._parts.eval_loader))
                times, sums = [], {"loss": 0.0, "top1": 0, "examples": 0}

    def step(self, batch: dict[str, np.ndarray], rate: float) -> dict[str, float]:
        """Takes a training step on a loader's batch; returns the sums "loss" (smoothed), "top1" and
        "examples".
        """
        self.network.train()
        images, labels = (
            self._augmented(torch.from_numpy(batch["image"])),
            torch.from_numpy(batch["label"]).long(),
        )
        for group in self._optimizer.param_groups:
            group["lr"] = float(rate)
        self._optimizer.zero_grad(set_to_none=True)
        logits = self.network(images)
        loss = functional.cross_entropy(
            logits, labels, label_smoothing=self._config.loss.label_smoothing
        )
        loss.backward()
        self._optimizer.step()
        hits = (logits.argmax(1) == labels).sum().item()
        return {"loss": loss.item() * len(labels), "top1": hits, "examples": len(labels)}

    @torch.inference_mode()
    def evaluate(self, loader: Loader) -> dict[str, float]:
        """Returns the mean "test_loss" and the "test_top1" fraction over a split, every image
        counted once.
        """
        self.network.eval()
        loss, hits = 0.0, 0
        for number in range(len(loader)):
            batch = loader[number]
            rows = torch.from_numpy(batch["mask"])
            labels = torch.from_numpy(batch["label"]).long()[rows]
            logits = self.network(self.normalised(torch.from_numpy(batch["image"])))[rows]
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            hits += (logits.argmax(1) == labels).sum().item()
        return {
            "test_loss": round(loss / len(loader.source), 5),
            "test_top1": hits / len(loader.source),
        }

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Turns images uint8 [N, H, W, C] into what the network takes: float [N, C, H, W], channels
        last.
        """
        images = (images.float() - self._shift) * self._factor
        return images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _augmented(self, images: torch.Tensor) -> torch.Tensor:
        data, source = self._config.data, self._parts.train_loader.source
        flip = source.image_shape is None if data.flip is None else data.flip
        return self.normalised(augment(images, pixels=data.pad_and_crop, flip=flip))


def augment(images: torch.Tensor, *, pixels: int, flip: bool) -> torch.Tensor:
    """Crops each image at random from itself with `pixels` of black around, and mirrors half of
    them.

    Args:
      images: uint8 [N, H, W, C].
      pixels: 0 for no crops.
      flip: whether to mirror.

    Returns:
      uint8 [N, H, W, C].
    """
    if not pixels and not flip:
        return images
    count, height, width, _ = images.shape
    top, left = torch.randint(0, 2 * pixels + 1, (2, count, 1))
    mirrored = (torch.rand(count, 1) < 0.5) if flip else torch.zeros(count, 1, dtype=torch.bool)
    rows, columns = top + torch.arange(height), torch.arange(width).expand(count, width)
    columns = left + torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(images, (0, 0, pixels, pixels, pixels, pixels))
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def make_optimizer(network: torch.nn.Module, optimizer: Any) -> torch.optim.SGD:
    """Returns momentum SGD with L2 decay of the kernels alone, or of everything, as the recipe's
    fields say.
    """
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    decay = optimizer.weight_decay
    groups = [
        {"params": kernels, "weight_decay": decay},
        {"params": others, "weight_decay": decay if optimizer.decay_norm_and_bias else 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=optimizer.momentum, nesterov=optimizer.nesterov)


def check(parts: Experiment) -> None:
    """Checks that the peer can train a recipe.

    Raises:
      UserError: a field has a value that it lacks.
    """
    for dotted, values in SUPPORTED.items():
        room, _, name = dotted.rpartition(".")
        value = (parts.config[room] if room else parts.config)[name]
        if value not in values:
            choices = " or ".join(map(repr, values))
            raise UserError(
                f"config.{dotted} = {value!r}: the training in PyTorch has {choices} alone"
            )
