"""BatchNorm folded into the convolution before it: the same function with fewer layers."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.errors import UserError
from resnet_jax.models.layers import BatchNorm, standardize
from resnet_jax.models.resnet import ResNet

Path = tuple[str, ...]


class Folded(NamedTuple):
    """A network of which BatchNorm layers are folded.

    Attributes:
      model: the network, for evaluation only.
      variables: its variables, NumPy's.
      count: how many layers are folded.
      kept: those that follow no convolution, such as "layer1_0/bn1".
    """

    model: ResNet
    variables: dict[str, Any]
    count: int
    kept: tuple[str, ...]


class Shift(nn.Module):
    """What is left of a normalisation whose factor went into a kernel: x + bias, [N, H, W, C]."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        return x + bias.astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class _Norms:
    """The factory of a folded network's normalisations."""

    kept: frozenset[str]
    epsilon: float

    def __call__(self, *, name: str, scale_init: Any, **dtypes: Any) -> nn.Module:
        del scale_init
        if name in self.kept:
            return BatchNorm(epsilon=self.epsilon, name=name, **dtypes)
        return Shift(name=name, **dtypes)


def fold(model: ResNet, variables: Mapping[str, Any]) -> Folded:
    """Folds every BatchNorm that follows a convolution into it.

    With the running statistics, (W x - mean) / sqrt(var + epsilon) * scale + bias is a convolution
    with the kernel W * scale / sqrt(var + epsilon) and a bias. In a v2 net a block's first
    BatchNorm and the one before the head follow a sum, and stay.

    Args:
      model: a network whose normalisation is BatchNorm.
      variables: {"params", "batch_stats"}.

    Raises:
      UserError: the network has no BatchNorm.
    """
    if model.norm != "batch":
        raise UserError(f"--fold: norm = {model.norm!r} leaves no BatchNorm to fold; leave it out")
    before = model.version == "v2"
    params = with_plain_kernels(model, variables)
    statistics = jax.tree.map(np.asarray, dict(variables["batch_stats"]))
    count, kept = 0, []
    for path in _layers(statistics):
        source = _convolution_before(path, _at(params, path[:-1]), before)
        if source is None:
            kept.append("/".join(path))
            continue
        count += 1
        norm, stats = _at(params, path), _pop(statistics, path)
        factor = norm["scale"] / np.sqrt(stats["var"].astype(np.float64) + model.norm_epsilon)
        shift = norm["bias"] - stats["mean"] * factor
        convolution = _at(params, source)
        for name in convolution:  # "kernel", and "bias" where the convolutions have one
            convolution[name] = (convolution[name] * factor).astype(np.float32)
        norm.clear()
        norm["bias"] = shift.astype(np.float32)
    names = frozenset(("bn1", "norm") if before else ())
    folded = model.clone(
        norm=_Norms(names, model.norm_epsilon),
        norm_group_size=None,
        axis_name=None,
        standardize=False,
    )
    statistics = {"batch_stats": statistics} if kept else {}
    return Folded(folded, {"params": params, **statistics}, count, tuple(kept))


def with_plain_kernels(model: ResNet, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns "params" as NumPy's float32, kernels standardised where the network does that."""

    def plain(path: Any, leaf: Any) -> Any:
        is_kernel = path[-1].key == "kernel" and leaf.ndim == 4
        return standardize(leaf) if is_kernel else leaf

    params = dict(variables["params"])
    if model.standardize:
        params = jax.jit(functools.partial(jax.tree_util.tree_map_with_path, plain))(params)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)


def _convolution_before(path: Path, around: Mapping[str, Any], before: bool) -> Path | None:
    """Returns the convolution whose result a BatchNorm reads, None where it reads a sum.

    Args:
      path: of the BatchNorm.
      around: the entries of the module that holds it.
      before: whether the net is of version v2, where normalisation comes before a convolution.
    """
    *parents, name = path
    kind, _, number = name.rpartition("_")
    if kind:  # "conv1_4", "maxpool_1" and "downsample_2" are numbered with what they follow
        source = f"{kind}_{int(number) - 1}"
    elif name == "norm":
        return None
    else:
        source = f"conv{int(name.removeprefix('bn')) - before}"
        # Of a deep stem's three convolutions the last.
        source = source if source in around else f"{source}_6"
    return (*parents, source) if source in around else None


def _layers(statistics: Mapping[str, Any], above: Path = ()) -> list[Path]:
    if "mean" in statistics:
        return [above]
    return [path for name in statistics for path in _layers(statistics[name], (*above, name))]


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _pop(tree: dict[str, Any], path: Path) -> Any:
    """Takes an entry out, with the modules that it leaves empty."""
    name, *rest = path
    found = _pop(tree[name], tuple(rest)) if rest else tree.pop(name)
    if rest and not tree[name]:
        del tree[name]
    return found
