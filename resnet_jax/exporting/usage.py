"""Python's lines that run an exported file without this package, for its card."""

from resnet_jax.description import Description
from resnet_jax.models.interop.timm_config import timm_name
from resnet_jax.models.interop.torch_code import torchvision_lines
from resnet_jax.models.resnet import ResNet
from resnet_jax.models.variants import Variant

_NAMES = 'open("classes.txt").read().splitlines()'


def stablehlo(about: Description, file: str, raw: bool) -> str:
    """Returns the lines for a StableHLO file; they need jax, flatbuffers and Pillow."""
    run = [
        f'program = export.deserialize(bytearray(open("{file}", "rb").read()))',
        f"answers = program.call({_input(raw)})",
    ]
    return _program(about, raw, "from jax import export", run)


def onnx(about: Description, file: str, raw: bool) -> str:
    """Returns the lines for an ONNX file; they need onnxruntime and Pillow."""
    run = [
        f'session = onnxruntime.InferenceSession("{file}")',
        f'(answers,) = session.run(None, {{"images": {_input(raw)}}})',
    ]
    return _program(about, raw, "import onnxruntime", run)


def torch(model: ResNet, about: Description, row: Variant | None) -> str:
    """Returns the lines for safetensors; they need PyTorch, and timm or torchvision.

    Args:
      model: the network.
      about: what it is.
      row: of the table, where timm has the network.
    """
    if row is not None:
        lines = ["import timm", "import torch", *_pixels(about), *_normalised(about), ""]
        lines.append("# In this directory; timm.create_model also takes hf-hub:OWNER/NAME.")
        lines.append(f'net = timm.create_model("local-dir:.", pretrained=True)  # {timm_name(row)}')
    else:
        made = torchvision_lines(model, len(about.mean))
        lines = ["import torch", "from safetensors.torch import load_file", *_pixels(about)]
        lines += [*_normalised(about), "", *(made or "").splitlines()]
        lines.append('net.load_state_dict(load_file("model.safetensors"), strict=True)')
    lines += [
        "",
        "net.eval()",
        "with torch.no_grad():",
        "    answers = net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()",
        *_best(about),
    ]
    return "\n".join(lines)


def _input(raw: bool) -> str:
    """Returns the variable that a program takes."""
    return "images" if raw else "pixels"


def _program(about: Description, raw: bool, imports: str, run: list[str]) -> str:
    """Returns the lines that run a program which holds the whole network."""
    normalised = _normalised(about) if raw else []
    return "\n".join([imports, *_pixels(about), *normalised, "", *run, *_best(about)])


def _pixels(about: Description) -> list[str]:
    """Makes `pixels`, uint8 [1, size, size, C], of a picture."""
    size, channels = about.eval_size, len(about.mean)
    short = max(size, round(size / about.crop))
    if about.crop_mode == "squash":
        sides = f"({short}, {short})"
    else:
        sides = f"[{short} * n // min(image.size) for n in image.size]"
    return [
        "import numpy as np",
        "from PIL import Image",
        "",
        f'image = Image.open("image.png").convert("{"L" if channels == 1 else "RGB"}")',
        f"image = image.resize({sides}, Image.Resampling.{about.interpolation.upper()})",
        f"left, top = (round((side - {size}) / 2) for side in image.size)",
        f"pixels = np.asarray(image.crop((left, top, left + {size}, top + {size})))"
        f".reshape(1, {size}, {size}, {channels})",
    ]


def _normalised(about: Description) -> list[str]:
    mean, std = (list(map(float, moment)) for moment in (about.mean, about.std))
    return [f"images = ((pixels / 255 - {mean}) / {std}).astype(np.float32)"]


def _best(about: Description) -> list[str]:
    if not about.classes:
        return ["print(answers)"]
    return [f"print({_NAMES}[answers[0].argmax()])"]
