"""The formats: what each of them needs, and what writes it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from resnet_jax import pretrained
from resnet_jax.errors import UserError, first_line
from resnet_jax.exporting import usage
from resnet_jax.exporting.network import Network, Settings, Written
from resnet_jax.models.interop import stablehlo, timm_config
from resnet_jax.models.interop.torch_code import torchvision_lines
from resnet_jax.models.interop.torch_weights import save_torch

_MOST_BYTES = 2_000_000_000  # of a file that holds the weights inside


class Format(NamedTuple):
    """A format.

    Attributes:
      check: raises `UserError` where a package is missing or the format has no such network.
      write: writes a network into a directory.
      tolerance: largest difference that it may make, relative to the largest logit.
    """

    check: Callable[[Network], None]
    write: Callable[[Path, Network, Settings], Written]
    tolerance: float


def _write_stablehlo(stage: Path, network: Network, settings: Settings) -> Written:
    path = stage / "model.stablehlo"
    options = {**network.images, "raw": settings.raw}
    stablehlo.write_stablehlo(path, network.model, network.variables, **options)
    notes = [
        f"StableHLO, as `jax.export` writes it (jax {jax.__version__}), for"
        f" {', '.join(stablehlo.PLATFORMS)}, any batch size, float32. JAX guarantees that versions"
        " of up to six months later read it (docs.jax.dev, jax.export)",
        _describe_program(network, settings),
    ]
    return Written(
        stablehlo.read_stablehlo(path),
        settings.raw,
        "jax",
        usage.stablehlo(network.description, path.name, settings.raw),
        notes,
    )


def _write_onnx(stage: Path, network: Network, settings: Settings) -> Written:
    import onnxruntime

    from resnet_jax.models.interop import onnx_graph

    path = stage / "model.onnx"
    opset = onnx_graph.OPSET if settings.opset is None else settings.opset
    options = {**network.images, "raw": settings.raw, "opset": opset}
    onnx_graph.write_onnx(path, network.model, network.variables, **options)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no type in common
        raise UserError(
            f"--opset={opset}: onnxruntime {onnxruntime.__version__} does not run it"
            f" ({first_line(error)}); take a lower one"
        ) from error
    notes = [
        f"ONNX, opset {opset}, any batch size, float32; checked with onnxruntime"
        f" {onnxruntime.__version__}",
        _describe_program(network, settings),
    ]
    return Written(
        lambda images: session.run(None, {onnx_graph.INPUT: images})[0],
        settings.raw,
        "onnx",
        usage.onnx(network.description, path.name, settings.raw),
        notes,
    )


def _write_torch(stage: Path, network: Network, settings: Settings) -> Written:
    del settings
    model, variables, about = network
    save_torch(variables, stage / "model.safetensors")
    config = timm_config.make_config(
        model,
        classes=about.classes,
        licence=about.licence,
        **{name: getattr(about, name) for name in timm_config.IMAGE_FIELDS},
    )
    (stage / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    same, read, _ = pretrained.load_pretrained(str(stage))
    if not jax.tree.all(jax.tree.map(np.array_equal, read, dict(variables))):
        raise RuntimeError("the export is wrong: other arrays come back; nothing is kept")
    row = timm_config.public_variant(model)
    notes = ["safetensors, with the names that torchvision gives (of v2 networks timm)"]
    notes.append("`resnet_jax.load_pretrained` reads this directory back, bit for bit")
    apply = jax.jit(same.apply)
    return Written(
        lambda images: apply(read, images),
        True,
        "timm" if row else "pytorch",
        usage.torch(model, about, row),
        notes,
    )


def _describe_program(network: Network, settings: Settings) -> str:
    about, classes = network.description, network.model.num_classes
    shape = f"[N, {about.eval_size}, {about.eval_size}, {len(about.mean)}]"
    if settings.raw:
        answer = "logits" if classes else "features"
        return f"takes float32 {shape}, (pixels / 255 - mean) / std; gives {answer}"
    answer = f"probabilities [N, {classes}]" if classes else "features"
    return f"takes uint8 pixels {shape}, resized and cropped, normalised inside; gives {answer}"


def _check_stablehlo(network: Network) -> None:
    stablehlo.check_installed()
    _check_size(network, "stablehlo")


def _check_onnx(network: Network) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'--format=onnx: {error.name} is missing; pip install "flax-resnet[onnx]"'
        ) from error
    _check_size(network, "onnx")


def _check_size(network: Network, form: str) -> None:
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(network.variables))
    if held > _MOST_BYTES:
        raise UserError(
            f"--format={form}: holds at most {_MOST_BYTES:,} bytes of weights, and these are"
            f" {held:,}; take --format=torch"
        )


def _check_torch(network: Network) -> None:
    model, _, about = network
    if timm_config.public_variant(model) or torchvision_lines(model, len(about.mean)):
        return
    unusual = timm_config.unusual_fields(model)
    fields = ", ".join(f"{name} {value!r}" for name, value in unusual.items())
    raise UserError(
        f"--format=torch: neither timm nor torchvision has this network"
        f" ({fields}); take onnx or stablehlo, or write the arrays with resnet_jax.save_torch"
    )


FORMATS: Mapping[str, Format] = {
    "stablehlo": Format(_check_stablehlo, _write_stablehlo, 1e-5),
    "onnx": Format(_check_onnx, _write_onnx, 1e-4),
    "torch": Format(_check_torch, _write_torch, 1e-5),
}
