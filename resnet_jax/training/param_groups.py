"""Which parameters train, and at what share of the learning rate: patterns over their paths.

A pattern is matched with a path such as "layer1_0/conv1/kernel", or with its beginning up to a "/":
"fc", "layer[12]_*" and "*/bias" are patterns. "all but fc" is what "fc" does not match.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from resnet_jax.errors import UserError

_ALL_BUT = "all but "


@dataclasses.dataclass(frozen=True)
class ParamGroups:
    """The groups that a recipe makes of a network's parameters.

    Attributes:
      freeze: patterns of what does not train.
      rates: (pattern, factor) pairs; the first that matches a path counts.
      freeze_epochs: how long the frozen ones stay so; None: to the end.
      layer_decay: factor for each place further from the last; 1 for none.
      depths: top-level module -> its place, counted from the images on.
    """

    freeze: tuple[str, ...]
    freeze_epochs: float | None
    rates: tuple[tuple[str, float], ...]
    layer_decay: float
    depths: Mapping[str, int]

    @classmethod
    def create(
        cls, optimizer: Mapping[str, Any], params: Any, depths: Mapping[str, int]
    ) -> "ParamGroups":
        """Reads the fields of a recipe for a network.

        Args:
          optimizer: the fields of `optimizer.FIELDS`.
          params: the parameters, or their shapes.
          depths: see the attribute.

        Raises:
          UserError: a pattern matches nothing, or nothing is left to train.
        """
        groups = cls(
            tuple(optimizer["freeze"]),
            optimizer["freeze_epochs"],
            tuple(_parse_rate(text) for text in optimizer["rates"]),
            optimizer["layer_decay"] or 1.0,
            depths,
        )
        paths = [path_of(path) for path, _ in jax.tree.leaves_with_path(params)]
        used = [("freeze", pattern) for pattern in groups.freeze]
        used += [("rates", pattern) for pattern, _ in groups.rates]
        for field, pattern in used:
            if not any(matches(pattern, path) for path in paths):
                tops = ", ".join(sorted({path.split("/")[0] for path in paths}))
                raise UserError(
                    f"config.optimizer.{field}: {pattern!r} matches no parameter; their paths begin"
                    f" with {tops}"
                )
        if all(groups.is_frozen(path) for path in paths) and groups.freeze_epochs is None:
            raise UserError(
                f"config.optimizer.freeze = {groups.freeze}: leaves nothing to train; freeze less,"
                " or set config.optimizer.freeze_epochs"
            )
        return groups

    def is_frozen(self, path: str) -> bool:
        return any(matches(pattern, path) for pattern in self.freeze)

    def rate(self, path: str) -> float:
        """Returns what the learning rate is multiplied with."""
        factor = next((factor for pattern, factor in self.rates if matches(pattern, path)), 1.0)
        top = max(self.depths.values())
        return factor * self.layer_decay ** (top - self.depths[path.split("/")[0]])

    @property
    def has_rates(self) -> bool:
        return bool(self.rates) or self.layer_decay != 1

    def frozen(self, params: Any) -> Any:
        """Returns a tree of bools like `params`."""
        return jax.tree_util.tree_map_with_path(
            lambda path, _: self.is_frozen(path_of(path)), params
        )

    def freeze_steps(self, steps_per_epoch: int, total_steps: int) -> int:
        """Returns how many steps at the start leave the frozen parameters as they are."""
        if not self.freeze:
            return 0
        if self.freeze_epochs is None:
            return total_steps
        return min(round(self.freeze_epochs * steps_per_epoch), total_steps)

    def table(self, params: Any) -> dict[str, str]:
        """Returns what trains at which share of the rate, for people.

        Args:
          params: the parameters, or their shapes.
        """
        until = f" {self.freeze_epochs:g} epochs, then " if self.freeze_epochs else ""
        rows: dict[str, dict[str, int]] = {}
        for path, leaf in jax.tree.leaves_with_path(params):
            name = path_of(path)
            label = f"rate × {self.rate(name):.3g}"
            if self.is_frozen(name):
                label = "frozen" + (until + label if until else "")
            modules = rows.setdefault(label, {})
            top = name.split("/")[0]
            modules[top] = modules.get(top, 0) + math.prod(leaf.shape)
        return {label: self._say(modules) for label, modules in rows.items()}

    def _say(self, modules: Mapping[str, int]) -> str:
        names = sorted(modules, key=lambda module: (self.depths[module], module))
        said = ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} .. {names[-1]}"
        return f"{said}, {sum(modules.values()):,} parameters"


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path of names joined by "/", or its beginning."""
    if pattern.startswith(_ALL_BUT):
        return not matches(pattern.removeprefix(_ALL_BUT), path)
    return any(fnmatch.fnmatchcase(part, pattern) for part in _beginnings(path))


def path_of(path: Sequence[Any]) -> str:
    """Returns a path of JAX's keys as names joined by "/"."""
    return "/".join(key.key for key in path)


def _beginnings(path: str) -> Iterator[str]:
    names = path.split("/")
    return ("/".join(names[:count]) for count in range(1, len(names) + 1))


def _parse_rate(text: str) -> tuple[str, float]:
    pattern, equals, factor = text.rpartition("=")
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not equals or not pattern or not (math.isfinite(value) and value >= 0):
        raise UserError(
            f"config.optimizer.rates = {text!r}: must be PATTERN=FACTOR, for example 'layer*=0.1'"
        )
    return pattern, value
