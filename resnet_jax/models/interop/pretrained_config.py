"""What the configuration files of timm's and transformers' networks say."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_jax.errors import UserError, nearest
from resnet_jax.models.variants import ALIASES, VARIANTS

# Families of timm's that the table of networks lacks: how their names look, the nearest network,
# and what differs.
_FOREIGN = (
    (r".*_pruned", "ecaresnet50d", "pruned channels"),
    (r"skresne(x?)t", "resnet50", "selective kernels: two branches of different dilation"),
    (r"resnest", "resnet50d", "split attention"),
    (r"res2ne(x?)t", "resnet50", "groups that feed each other inside a block"),
    (r"legacy_se", "seresnet50", "a max pool without border, and arrays of other names"),
    (r"resnetv2_.*_(evos|frn)", "resnet50d_v2", "a normalisation with an activation of its own"),
    (r"resnet.*_(clip|mlp)", "resnetaa50d", "a stem that ends in an average (CLIP)"),
    (r"nf_", "resnet50", "scaled and standardised kernels in place of a normalisation"),
    (r"(bat|bot|halo|lambda|sehalo)", "resnet50d", "blocks with attention"),
    (r".*\d+(ts|q)(_|$)", "resnet50t", "SiLU in place of ReLU, and a stem of its own"),
    (r"tresnet", "resnetaa50", "a stem that rearranges pixels, and leaky activations"),
)
# What a network may be made with and still compute the table's function when it is scored.
_NEUTRAL = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate"}
_NEUTRAL |= {"zero_init_last", "pretrained_strict", "img_size"}
OWN = "resnet_jax"  # the model_type of networks that timm lacks
CROP_MODES = {"center": "centre", "squash": "squash"}
_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")
_PILLOW = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # the numbers of PIL.Image.Resampling
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """A configuration, read.

    Attributes:
      network: name of the table's row.
      fields: of `ResNet`, where they differ from the row's.
      classes: names of the classes; () where the configuration has none.
      preprocessing: the fields of `Description` that say how to prepare images.
      licence: of the weights; None where the configuration has none.
    """

    network: str
    fields: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    licence: str | None


def read_config(
    config: Mapping[str, Any], processor: Mapping[str, Any], size: str, where: Any
) -> PretrainedConfig:
    """Reads config.json, and for transformers preprocessor_config.json.

    Args:
      config: of a timm network, of transformers' ResNetForImageClassification, or of a network that
        timm lacks as `timm_config.make_config` writes it.
      processor: of transformers; {} where there is none.
      size: "train" or "test": which of timm's two sizes to score at.
      where: the repository, for messages.

    Raises:
      UserError: the network is not in the table, or preprocessing is of a kind unknown here.
    """
    if "architecture" in config:
        return _read_timm(config, size, where)
    if config.get("model_type") == OWN:
        return _read_own(config, size, where)
    if config.get("model_type") == "resnet":
        return _read_transformers(config, processor, where)
    raise UserError(
        f"{where}: config.json is neither timm's (no architecture) nor of a ResNet of transformers"
        f" (model_type {config.get('model_type')!r}); load_torch reads the weights of a network"
        " that you name"
    )


def _read_timm(config: Mapping[str, Any], size: str, where: Any) -> PretrainedConfig:
    # Older files have no pretrained_cfg: its entries are at the top.
    given = config.get("pretrained_cfg", config)
    args = {**config.get("model_args", {})}
    network = _timm_network(config["architecture"], where)
    if args.pop("global_pool", "avg") not in ("avg", "") or not args.keys() <= _NEUTRAL:
        raise UserError(
            f"{where}: made with model_args {config['model_args']}, which change the network; build"
            " it with create_model and load_torch, if ResNet has such fields"
        )
    classes = config.get("num_classes", given.get("num_classes", 1000))
    names = config.get("label_names") or given.get("label_names")
    return PretrainedConfig(
        network,
        {"num_classes": classes},
        _label_names(names, classes),
        _timm_images(given, size, where),
        given.get("license"),
    )


def _read_own(config: Mapping[str, Any], size: str, where: Any) -> PretrainedConfig:
    given, fields = config["pretrained_cfg"], {**config["model"]}
    return PretrainedConfig(
        fields.pop("name"),
        fields,
        _label_names(config.get("label_names"), fields["num_classes"]),
        _timm_images(given, size, where),
        given.get("license"),
    )


def _label_names(names: Any, classes: int) -> tuple[str, ...]:
    """Returns the names of the classes, () where a file has none or too few."""
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(map(str, names)) if names and len(names) == classes else ()


def _timm_images(given: Mapping[str, Any], size: str, where: Any) -> dict[str, Any]:
    test = size == "test"
    trained = given.get("input_size", (3, 224, 224))
    side = (given.get("test_input_size") if test else None) or trained
    crop = (given.get("test_crop_pct") if test else None) or given.get("crop_pct") or 0.875
    return {
        "image_size": trained[-1],
        "eval_size": side[-1],
        "interpolation": _interpolation(given.get("interpolation", "bicubic"), where),
        "crop": _exact_crop(side[-1], crop),
        "crop_mode": _crop_mode(given.get("crop_mode", "center"), where),
        **{name: tuple(given.get(name) or _IMAGENET[name]) for name in ("mean", "std")},
    }


def _timm_network(architecture: str, where: Any) -> str:
    """Returns the table's name of one of timm's networks, under its former names too."""
    known = VARIANTS.keys() | ALIASES.keys()
    plain = re.sub(r"^(tv|ssl|swsl|ig|gluon)_", "", architecture.partition(".")[0])
    plain = re.sub(r"_v1(b|c|d|s)$", lambda found: found[1].replace("b", ""), plain)
    if plain in known:
        return ALIASES.get(plain, plain)
    foreign = next((row for row in _FOREIGN if re.match(row[0], architecture)), None)
    if foreign:
        _, near, differs = foreign
        advice = f"the nearest is {near!r}, from which it differs in {differs}"
    else:
        advice = nearest(plain, known) or "list_models() names those that are"
    raise UserError(f"{where}: the network {architecture!r} is not in the table; {advice}")


def _exact_crop(side: int, share: float) -> float:
    """Returns a share for which our rounding of the resized side is timm's, which rounds down."""
    return side / math.floor(side / share)


def _interpolation(name: str, where: Any) -> str:
    if name not in _INTERPOLATIONS:
        raise UserError(
            f"{where}: images are resized by {name!r}, which is not among"
            f" {', '.join(_INTERPOLATIONS)}; load_torch reads the weights alone"
        )
    return name


def _crop_mode(name: str, where: Any) -> str:
    if name not in CROP_MODES:
        raise UserError(
            f"{where}: images are cropped by {name!r}, which is not among"
            f" {', '.join(CROP_MODES)}; load_torch reads the weights alone"
        )
    return CROP_MODES[name]


def _read_transformers(
    config: Mapping[str, Any], processor: Mapping[str, Any], where: Any
) -> PretrainedConfig:
    basic = config.get("layer_type", "bottleneck") == "basic"
    hidden = config.get("hidden_sizes", (256, 512, 1024, 2048))
    _check_transformers(config, hidden, where)
    headless = all("Classification" not in name for name in config.get("architectures") or [""])
    names = config.get("id2label") or {}
    classes = () if headless else tuple(names[key] for key in sorted(names, key=int))
    fields = {
        "stage_sizes": tuple(config.get("depths", (3, 4, 6, 3))),
        "block": "basic" if basic else "bottleneck",
        "width": hidden[0] if basic else hidden[0] // 4,
        "stem_width": config.get("embedding_size", 64),
        "version": "v1" if config.get("downsample_in_bottleneck") else "v1.5",
        "num_classes": 0 if headless else len(classes) or config.get("num_labels", 2),
    }
    # transformers numbers the classes of which nobody gave the names.
    if all(re.fullmatch(r"LABEL_\d+", name) for name in classes):
        classes = ()
    return PretrainedConfig(
        "resnet50", fields, classes, _transformers_images(processor, where), config.get("license")
    )


def _check_transformers(config: Mapping[str, Any], hidden: Sequence[int], where: Any) -> None:
    faults = {
        "downsample_in_first_stage": config.get("downsample_in_first_stage"),
        "hidden_act": config.get("hidden_act", "relu") != "relu",
        "hidden_sizes": any(size != hidden[0] * 2**stage for stage, size in enumerate(hidden)),
    }
    for name, is_fault in faults.items():
        if is_fault:
            raise UserError(
                f"{where}: config.json has {name} = {config[name]!r}, which no network here has;"
                " use transformers for it"
            )


def _transformers_images(processor: Mapping[str, Any], where: Any) -> dict[str, Any]:
    size = processor.get("size", {"shortest_edge": 224})
    size = {"shortest_edge": size} if isinstance(size, int) else size
    mode = "centre"
    if "crop_pct" in processor and "shortest_edge" in size:
        side = size["shortest_edge"]
        crop = _exact_crop(side, processor["crop_pct"] or 0.875)
        if side >= 384:  # transformers' ConvNextImageProcessor then shows the whole image
            crop, mode = 1.0, "squash"
    else:
        resized = size.get("shortest_edge", size.get("height", 224))
        cut = processor.get("crop_size", resized)
        side = cut if isinstance(cut, int) else cut.get("height", resized)
        if not processor.get("do_center_crop", "crop_size" in processor):
            side = resized
        crop = side / max(side, resized)
        mode = "centre" if "shortest_edge" in size else "squash"
    number = processor.get("resample", 3 if processor else 2)
    moments = {
        name: tuple(processor.get(f"image_{name}") or _IMAGENET[name]) for name in ("mean", "std")
    }
    return {
        "image_size": side,
        "eval_size": side,
        "interpolation": _interpolation(_PILLOW.get(number, f"filter {number}"), where),
        "crop": crop,
        "crop_mode": mode,
        **moments,
    }
