"""A network as an ONNX graph, written from its structure. Needs the package onnx.

Inside maps are [N, C, H, W], as ONNX has them. What a layer is, its parameters tell; how layers
follow one another is what `resnet.ResNet` and `blocks.ResidualBlock` say, and the tests and every
export compare the two.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper

from resnet_jax.errors import UserError
from resnet_jax.models.blocks import ResidualBlock
from resnet_jax.models.interop.fold import with_plain_kernels
from resnet_jax.models.interop.onnx_nodes import Nodes, over_map
from resnet_jax.models.resnet import ResNet

OPSET, OLDEST_OPSET = 17, 13
INPUT = "images"


def check_opset(opset: int) -> None:
    """Raises `UserError` for an opset that is too old for the graph, or that onnx does not know."""
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UserError(
            f"--opset={opset}: must be {OLDEST_OPSET} to {newest}: older ones lack operators of the"
            f" graph, and onnx {onnx.__version__} knows no newer"
        )


def write_onnx(
    path: Path,
    model: ResNet,
    variables: Mapping[str, Any],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    raw: bool = False,
    opset: int = OPSET,
) -> None:
    """Writes a network, its weights inside, in float32.

    The graph takes "images", uint8 pixels [N, size, size, C] of any N, and gives "probabilities"
    [N, num_classes], or "features" where the network has no classifier. With `raw` "images" are
    normalised, float32 of the same shape, and it gives "logits".

    Args:
      path: the file.
      model: the network, as a recipe can state it, or folded.
      variables: {"params"} and, with BatchNorm, {"batch_stats"}.
      size: side of the images in pixels.
      mean, std: per channel, of pixels in 0..1.
      raw: whether normalisation and softmax are left out.
      opset: version of ONNX's operators.

    Raises:
      UserError: the opset is too old or too new.
      OSError: the file cannot be written.
    """
    check_opset(opset)
    writer = _Writer(model, variables)
    x = INPUT
    if not raw:
        x = writer.add("Cast", x, to=TensorProto.FLOAT)
        moments = {"mean": ("Sub", mean), "std": ("Div", std)}
        for name, (kind, value) in {"levels": ("Div", 255), **moments}.items():
            x = writer.add(kind, x, writer.constant(name, np.asarray(value, np.float32)))
    x = writer.head(writer.body(writer.add("Transpose", x, perm=[0, 3, 1, 2])))
    output = "logits" if model.num_classes else "features"
    if model.num_classes and not raw:
        output = "probabilities"
        writer.add("Softmax", x, axis=1)
    writer.nodes[-1].output[0] = output
    dtype = TensorProto.FLOAT if raw else TensorProto.UINT8
    width = model.num_classes or list(model.feature_info().values())[-1].channels
    graph = helper.make_graph(
        writer.nodes,
        "resnet",
        [helper.make_tensor_value_info(INPUT, dtype, ["n", size, size, len(mean)])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width])],
        list(writer.constants.values()),
    )
    opsets = [helper.make_opsetid("", opset)]
    # The oldest that has the opset, for runtimes older than this package.
    versions = {"opset_imports": opsets, "ir_version": helper.find_min_ir_version_for(opsets)}
    program = helper.make_model(graph, **versions, producer_name="resnet_jax")
    onnx.checker.check_model(program, full_check=True)
    path.write_bytes(program.SerializeToString())


class _Writer(Nodes):
    """The nodes of a network."""

    def __init__(self, model: ResNet, variables: Mapping[str, Any]):
        super().__init__()
        self._model = model
        self._params = with_plain_kernels(model, variables)
        statistics = dict(variables.get("batch_stats", {}))
        self._statistics = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), statistics)

    def body(self, x: str) -> str:
        """Adds what leads to the last map."""
        model = self._model
        x = self._stem_pool(self._stem(x))
        channels = model.stem_channels
        for stage, size in enumerate(model.stage_sizes):
            for number in range(size):
                block = model.block_at(stage, number)
                x = self._block(x, block, channels)
                channels = block.out_features
        return self.relu(self._normalise(x, "norm")) if model.version == "v2" else x

    def head(self, x: str) -> str:
        """Adds the pool and the classifier, if there is one."""
        x = self.add("Flatten", self.add("GlobalAveragePool", x))
        if not self._model.num_classes:
            return x
        weights = self._params["fc"]
        names = [self.constant(f"fc.{name}", weights[name]) for name in ("kernel", "bias")]
        return self.add("Gemm", x, *names)

    def _stem(self, x: str) -> str:
        stem = self._model.stem
        if stem in ("deep", "tiered"):
            x = self._convolve(x, "conv1_0", size=3, stride=2)
            x = self._convolve(self.relu(self._normalise(x, "conv1_1")), "conv1_3", size=3)
            x = self.relu(self._normalise(x, "conv1_4"))
            x = self._convolve(x, "conv1_6", size=3)
        elif stem == "small":
            x = self._convolve(x, "conv1", size=3)
        else:
            x = self._convolve(x, "conv1", size=7, stride=2)
        return x if self._model.version == "v2" else self.relu(self._normalise(x, "bn1"))

    def _stem_pool(self, x: str) -> str:
        model, pool = self._model, self._model.pool_after_stem
        window = {"kernel_shape": [3, 3], "pads": [1] * 4}
        if pool == "max" and model.anti_alias == "average":
            return self.average(x, 2)
        if pool == "max" and model.anti_alias == "blur":
            return self.blur(self.add("MaxPool", x, **window), 2, model.stem_channels)
        if pool == "max":
            return self.add("MaxPool", x, strides=[2, 2], **window)
        if pool == "max_zeros":
            padded = self.pad(x, [0, 0, 1, 1, 0, 0, 1, 1])
            return self.add("MaxPool", padded, kernel_shape=[3, 3], strides=[2, 2])
        if pool == "conv":
            x = self._convolve(x, "maxpool_0", size=3, stride=2)
            return self.relu(self._normalise(x, "maxpool_1"))
        return x

    def _block(self, x: str, block: ResidualBlock, channels: int) -> str:
        before, specs = block.version == "v2", block.convolutions()
        y = activated = x
        smooth = None
        for number, spec in enumerate(specs, 1):
            norm = f"{block.name}.bn{number}"
            if before:
                y = self.relu(self._normalise(y, norm))
            if number == 1:
                activated = y
            if smooth is not None:
                features = specs[number - 2]["features"]
                blurs = block.anti_alias == "blur"
                y = self.blur(y, smooth, features) if blurs else self.average(y, smooth)
            spec, smooth = block.unaliased(spec)
            y = self._convolve(y, f"{block.name}.conv{number}", **spec)
            if not before:
                y = self._normalise(y, norm)
                y = self.relu(y) if number < len(specs) else y
        if block.se_ratio or block.eca:
            gate = self._squeeze_excite if block.se_ratio else self._channel_attention
            y = self.add("Mul", y, gate(self.add("GlobalAveragePool", y), f"{block.name}.se"))
        if block.residual:
            y = self.add("Add", y, self._shortcut(x, activated, block, channels))
        return y if before else self.relu(y)

    def _shortcut(self, x: str, activated: str, block: ResidualBlock, channels: int) -> str:
        stride, more = block.stride, block.out_features - channels
        if block.shortcut in ("A", "A_pool"):
            if stride != 1 and block.shortcut == "A_pool":
                x = self.average(x, stride)
            elif stride != 1:
                x = self.every(x, stride)
            return self.pad(x, [0] * 5 + [more, 0, 0]) if more else x
        if stride == 1 and not more and block.shortcut != "C":
            return x
        first, spec = 0, {"stride": stride}
        if block.shortcut == "D":
            first, spec = 1, {}
            if stride != 1:
                activated = self.average(activated, stride)
            elif block.dilation != 1:
                # Each pixel with the next ones, zeros beyond the edge.
                window = {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1}
                activated = self.add("AveragePool", activated, **window)
        elif block.shortcut_size != 1 and (stride != 1 or block.dilation != 1):
            dilation = block.first_dilation or block.dilation
            spec |= {"size": block.shortcut_size, "dilation": dilation}
        y = self._convolve(activated, f"{block.name}.downsample_{first}", **spec)
        is_v2 = block.version == "v2"
        return y if is_v2 else self._normalise(y, f"{block.name}.downsample_{first + 1}")

    def _convolve(
        self,
        x: str,
        at: str,
        *,
        size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        features: int = 0,
    ) -> str:
        del features  # The kernel has them.
        weights = self._weights(at)
        inputs = [x, self.constant(f"{at}.kernel", weights["kernel"].transpose(3, 2, 0, 1))]
        if "bias" in weights:
            inputs.append(self.constant(f"{at}.bias", weights["bias"]))
        return self.add(
            "Conv",
            *inputs,
            kernel_shape=[size, size],
            strides=[stride, stride],
            dilations=[dilation, dilation],
            pads=[dilation * (size - 1) // 2] * 4,
            group=groups,
        )

    def _normalise(self, x: str, at: str) -> str:
        if self._model.norm_kind is None:
            return x
        weights = self._weights(at)
        names = {name: self.constant(f"{at}.{name}", value) for name, value in weights.items()}
        if "scale" not in names:  # folded into the convolution that is the last node
            if len(self.nodes[-1].input) == 2:
                self.nodes[-1].input.append(names["bias"])
                return x
            return self.add("Add", x, self.constant(f"{at}.bias", over_map(weights["bias"])))
        epsilon = self._model.norm_epsilon
        statistics = self._weights(at, self._statistics)
        if not statistics:
            return self._group_normalise(x, at, weights)
        moments = [self.constant(f"{at}.{name}", statistics[name]) for name in ("mean", "var")]
        given = names["scale"], names["bias"], *moments
        return self.add("BatchNormalization", x, *given, epsilon=epsilon)

    def _group_normalise(self, x: str, at: str, weights: Mapping[str, Any]) -> str:
        # GroupNormalization scales groups before opset 21, and channels from there on.
        groups = self._model.norm_channel_groups
        shape = self.add("Shape", x)
        grouped = self.add("Reshape", x, self.constant("by_group", np.array([0, groups, -1])))
        ones = self.constant("ones", np.ones(groups, np.float32))
        zeros = self.constant("zeros", np.zeros(groups, np.float32))
        epsilon = self._model.norm_epsilon
        y = self.add("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
        y = self.add("Reshape", y, shape)
        for kind, name in (("Mul", "scale"), ("Add", "bias")):
            y = self.add(kind, y, self.constant(f"{at}.{name}", over_map(weights[name])))
        return y

    def _squeeze_excite(self, mean: str, at: str) -> str:
        weights = self._weights(at)
        y = mean
        for name in ("fc1", "fc2"):
            y = self.relu(y) if name == "fc2" else y
            kernel = self.constant(f"{at}.{name}.kernel", over_map(weights[name]["kernel"].T))
            y = self.add(
                "Conv", y, kernel, self.constant(f"{at}.{name}.bias", weights[name]["bias"])
            )
        return self.add("Sigmoid", y)

    def _channel_attention(self, mean: str, at: str) -> str:
        kernel = self._weights(f"{at}.conv")["kernel"].transpose(2, 1, 0)
        last = self.constant("last_axis", np.array([3]))
        row = self.add("Transpose", self.add("Squeeze", mean, last), perm=[0, 2, 1])
        pads = [kernel.shape[2] // 2] * 2
        y = self.add("Conv", row, self.constant(f"{at}.conv.kernel", kernel), pads=pads)
        y = self.add("Unsqueeze", self.add("Transpose", y, perm=[0, 2, 1]), last)
        return self.add("Sigmoid", y)

    def _weights(self, at: str, tree: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Returns the entry of a dotted name in "params" or another tree; {} without one."""
        found = self._params if tree is None else tree
        for name in at.split("."):
            found = found.get(name, {})
        return found
