"""The family by name: one table of variants, and the functions that read it."""

import dataclasses
import fnmatch
import types
from collections.abc import Mapping
from typing import Any

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field
from resnet_jax.models.checks import check_names, fields_of
from resnet_jax.models.resnet import ResNet


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
      name: for `create_model`.
      fields: of `ResNet`, where they differ from its defaults.
      params: reference count of parameters.
      macs: reference multiply-adds of one forward pass at `image_size`.
      paper: where the architecture is from.
      counts: where the two reference counts are from.
      image_size: height and width for `macs`, in pixels.
    """

    name: str
    fields: Mapping[str, Any]
    params: int
    macs: int
    paper: str
    counts: str
    image_size: int


def _family(paper: str, shared: Mapping[str, Any], *rows: tuple) -> list[Variant]:
    size = 32 if shared.get("stem") == "small" else 224
    return [
        Variant(name, {**shared, **fields}, params, macs, paper, counts, size)
        for name, fields, params, macs, counts in rows
    ]


def _equal(blocks: int) -> dict[str, Any]:
    return {"stage_sizes": (blocks,) * 3}


def _groups(groups: int, width: int) -> dict[str, Any]:
    return {"groups": groups, "width_per_group": width}


_HE_2015 = "He et al. 2015, Deep Residual Learning"
_HE_2016 = "He et al. 2016, Identity Mappings"
_ZAGORUYKO = "Zagoruyko and Komodakis 2016, Wide Residual Networks"
_XIE = "Xie et al. 2017, Aggregated Residual Transformations"
_HU = "Hu et al. 2018, Squeeze-and-Excitation Networks"
_BAG_OF_TRICKS = "He et al. 2019, Bag of Tricks"
_BELLO = "Bello et al. 2021, Revisiting ResNets"

# Counted by these libraries' own modules; the rest are sums over the paper's layers, which the
# tests redo.
_TV, _TIMM, _PCV = "torchvision 0.29.2", "timm 1.0.31", "pytorchcv 0.0.74"
_SUM = "the paper's layers"

_BASIC = {"block": "basic"}
_OPTION_A = {**_BASIC, "shortcut": "A"}
_SCAN = {"scan_blocks": True}
_CIFAR = {"stem": "small", "width": 16, "num_classes": 10}
_DEPTH = {
    18: {"stage_sizes": (2, 2, 2, 2), **_BASIC},
    34: {"stage_sizes": (3, 4, 6, 3), **_BASIC},
    50: {"stage_sizes": (3, 4, 6, 3)},
    101: {"stage_sizes": (3, 4, 23, 3)},
    152: {"stage_sizes": (3, 8, 36, 3)},
    200: {"stage_sizes": (3, 24, 36, 3)},
}

_ROWS = (
    *_family(
        _HE_2015,
        {},
        ("resnet18", _DEPTH[18], 11_689_512, 1_814_073_344, _TV),
        ("resnet34", _DEPTH[34], 21_797_672, 3_663_761_408, _TV),
        ("resnet50", _DEPTH[50], 25_557_032, 4_089_184_256, _TV),
        ("resnet101", _DEPTH[101], 44_549_160, 7_801_405_440, _TV),
        ("resnet152", _DEPTH[152], 60_192_808, 11_513_626_624, _TV),
    ),
    *_family(
        _HE_2016,
        {},
        ("resnet200", _DEPTH[200], 64_673_832, 15_007_481_856, _TIMM),
    ),
    *_family(
        _HE_2015,
        {"version": "v1"},
        ("resnet50_v1", _DEPTH[50], 25_557_032, 3_857_973_248, _SUM),
        ("resnet101_v1", _DEPTH[101], 44_549_160, 7_570_194_432, _SUM),
        ("resnet152_v1", _DEPTH[152], 60_192_808, 11_282_415_616, _SUM),
        ("resnet200_v1", _DEPTH[200], 64_673_832, 14_776_270_848, _SUM),
    ),
    *_family(
        _HE_2016,
        {"version": "v2"},
        ("resnet18_v2", _DEPTH[18], 11_687_720, 1_814_073_344, _TIMM),
        ("resnet34_v2", _DEPTH[34], 21_795_880, 3_663_761_408, _TIMM),
        ("resnet50_v2", _DEPTH[50], 25_549_352, 4_089_184_256, _TIMM),
        ("resnet101_v2", _DEPTH[101], 44_541_480, 7_801_405_440, _TIMM),
        ("resnet152_v2", _DEPTH[152], 60_185_128, 11_513_626_624, _TIMM),
        ("resnet200_v2", _DEPTH[200], 64_666_152, 15_007_481_856, _SUM),
    ),
    *_family(
        _BAG_OF_TRICKS,
        {"stem": "deep"},
        ("resnet50c", _DEPTH[50], 25_576_264, 4_328_824_832, _TIMM),
        ("resnet101c", _DEPTH[101], 44_568_392, 8_041_046_016, _TIMM),
        ("resnet152c", _DEPTH[152], 60_212_040, 11_753_267_200, _TIMM),
    ),
    *_family(
        _BAG_OF_TRICKS,
        {"stem": "deep", "shortcut": "D"},
        ("resnet18d", _DEPTH[18], 11_708_744, 2_053_713_920, _TIMM),
        ("resnet34d", _DEPTH[34], 21_816_904, 3_903_401_984, _TIMM),
        ("resnet50d", _DEPTH[50], 25_576_264, 4_328_824_832, _TIMM),
        ("resnet101d", _DEPTH[101], 44_568_392, 8_041_046_016, _TIMM),
        ("resnet152d", _DEPTH[152], 60_212_040, 11_753_267_200, _TIMM),
        ("resnet200d", _DEPTH[200], 64_693_064, 15_247_122_432, _TIMM),
    ),
    *_family(
        _HE_2015,
        {"residual": False},
        ("plain18", _DEPTH[18], 11_515_688, 1_794_805_760, _SUM),
        ("plain34", _DEPTH[34], 21_623_848, 3_644_493_824, _SUM),
    ),
    *_family(
        _XIE,
        {},
        ("resnext50_32x4d", {**_DEPTH[50], **_groups(32, 4)}, 25_028_904, 4_230_479_872, _TV),
        ("resnext101_32x4d", {**_DEPTH[101], **_groups(32, 4)}, 44_177_704, 7_969_996_800, _TIMM),
        ("resnext101_32x8d", {**_DEPTH[101], **_groups(32, 8)}, 88_791_336, 16_414_015_488, _TV),
        ("resnext101_64x4d", {**_DEPTH[101], **_groups(64, 4)}, 83_455_272, 15_460_270_080, _TV),
    ),
    *_family(
        _ZAGORUYKO,
        {"width_per_group": 128},
        ("wide_resnet50_2", _DEPTH[50], 68_883_240, 11_398_021_120, _TV),
        ("wide_resnet101_2", _DEPTH[101], 126_886_696, 22_753_050_624, _TV),
    ),
    *_family(
        _HU,
        {"se_ratio": 1 / 16},
        ("seresnet18", _DEPTH[18], 11_779_624, 1_814_161_408, _TIMM),
        ("seresnet34", _DEPTH[34], 21_960_416, 3_663_920_128, _TIMM),
        ("seresnet50", _DEPTH[50], 28_088_024, 4_091_699_200, _TIMM),
        ("seresnet101", _DEPTH[101], 49_326_872, 7_806_148_608, _TIMM),
        ("seresnet152", _DEPTH[152], 66_821_848, 11_520_204_800, _TIMM),
        ("seresnext50_32x4d", {**_DEPTH[50], **_groups(32, 4)}, 27_559_896, 4_232_994_816, _TIMM),
        ("seresnext101_32x4d", {**_DEPTH[101], **_groups(32, 4)}, 48_955_416, 7_974_739_968, _TIMM),
    ),
    *_family(
        _BELLO,
        {"stem": "deep", "stem_pool": "conv", "shortcut": "D", "se_ratio": 1 / 4},
        ("resnet_rs50", _DEPTH[50], 35_691_912, 4_454_490_112, _TIMM),
        ("resnet_rs101", _DEPTH[101], 63_618_696, 8_175_624_192, _TIMM),
        ("resnet_rs152", _DEPTH[152], 86_621_576, 11_895_185_408, _TIMM),
        ("resnet_rs200", _DEPTH[200], 93_209_992, 15_391_137_792, _TIMM),
        ("resnet_rs270", {"stage_sizes": (4, 29, 53, 4)}, 129_861_448, 20_643_618_816, _TIMM),
        ("resnet_rs350", {"stage_sizes": (4, 36, 72, 4)}, 163_956_168, 26_332_012_544, _TIMM),
        ("resnet_rs420", {"stage_sizes": (4, 44, 87, 4)}, 191_891_656, 31_363_342_336, _TIMM),
    ),
    *_family(
        _HE_2015,
        {**_CIFAR, **_OPTION_A},
        ("cifar_resnet20", _equal(3), 269_722, 40_551_040, _SUM),
        ("cifar_resnet32", _equal(5), 464_154, 68_862_592, _SUM),
        ("cifar_resnet44", _equal(7), 658_586, 97_174_144, _SUM),
        ("cifar_resnet56", _equal(9), 853_018, 125_485_696, _SUM),
        ("cifar_resnet110", _equal(18), 1_727_962, 252_887_680, _SUM),
        ("cifar_resnet1202", {**_equal(200), **_SCAN}, 19_421_274, 2_829_238_912, _SUM),
    ),
    *_family(
        _HE_2015,
        {**_CIFAR, **_BASIC},
        ("cifar_resnet20b", _equal(3), 272_474, 40_813_184, _PCV),
        ("cifar_resnet32b", _equal(5), 466_906, 69_124_736, _SUM),
        ("cifar_resnet44b", _equal(7), 661_338, 97_436_288, _SUM),
        ("cifar_resnet56b", _equal(9), 855_770, 125_747_840, _PCV),
        ("cifar_resnet110b", _equal(18), 1_730_714, 253_149_824, _PCV),
        ("cifar_resnet1202b", {**_equal(200), **_SCAN}, 19_424_026, 2_829_501_056, _PCV),
    ),
    *_family(
        _HE_2015,
        {**_CIFAR, **_BASIC, "residual": False},
        ("cifar_plain20", _equal(3), 269_722, 40_551_040, _SUM),
        ("cifar_plain32", _equal(5), 464_154, 68_862_592, _SUM),
        ("cifar_plain44", _equal(7), 658_586, 97_174_144, _SUM),
        ("cifar_plain56", _equal(9), 853_018, 125_485_696, _SUM),
        ("cifar_plain110", _equal(18), 1_727_962, 252_887_680, _SUM),
    ),
    *_family(
        _HE_2016,
        {**_CIFAR, "version": "v2"},
        ("cifar_resnet110_v2", {**_equal(18), **_OPTION_A}, 1_727_962, 252_887_680, _SUM),
        ("cifar_resnet164_v2", _equal(18), 1_703_258, 247_646_720, _PCV),
        ("cifar_resnet1001_v2", {**_equal(111), **_SCAN}, 10_327_706, 1_490_995_712, _PCV),
    ),
    *_family(
        _ZAGORUYKO,
        {**_CIFAR, **_BASIC, "version": "v2", "stem_width": 16},
        ("wide_resnet16_8", {**_equal(2), "width": 128}, 10_961_370, 1_548_145_664, _SUM),
        ("wide_resnet28_10", {**_equal(4), "width": 160}, 36_479_194, 5_243_328_768, _PCV),
    ),
    *_family(
        _XIE,
        {**_CIFAR, **_equal(3), "width": 64},
        ("cifar_resnext29_8x64d", _groups(8, 64), 34_426_698, 5_387_266_048, _SUM),
        ("cifar_resnext29_16x64d", _groups(16, 64), 68_155_210, 10_688_866_304, _PCV),
    ),
)
VARIANTS: Mapping[str, Variant] = types.MappingProxyType({row.name: row for row in _ROWS})

# timm's spellings of the same networks.
ALIASES: Mapping[str, str] = types.MappingProxyType(
    {
        **{f"resnetv2_{depth}": f"resnet{depth}_v2" for depth in (18, 34, 50, 101, 152)},
        **{f"resnetrs{depth}": f"resnet_rs{depth}" for depth in (50, 101, 152, 200, 270, 350, 420)},
    }
)

# What a recipe may set under `config.model`; None: as the table's row has it, else as `ResNet`.
FIELDS: Mapping[str, Field] = types.MappingProxyType(
    {"name": Field("resnet50", "a name that list_models() gives", str)}
    | {name: dataclasses.replace(one, default=None) for name, one in fields_of(ResNet).items()}
)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names that match a pattern such as "resnet*", aliases not listed."""
    return sorted(fnmatch.filter(VARIANTS, pattern))


def get_variant(name: str) -> Variant:
    """Returns the row of a name or an alias; else raises `UserError` with the nearest names."""
    row = VARIANTS.get(ALIASES.get(name, name))
    if row is None:
        hint = nearest(str(name), [*VARIANTS, *ALIASES]) or "list_models() names them all"
        raise UserError(f"model.name = {name!r} is not a model; {hint}")
    return row


def create_model(name: str, **fields: Any) -> ResNet:
    """Builds a network of the table.

    Args:
      name: one that `list_models` gives, or timm's spelling of it.
      **fields: fields of `ResNet` to set; None leaves a field as the table has it.

    Returns:
      The module; `init` it for variables.

    Raises:
      UserError: the name or a field is unknown, or the fields contradict each other.
    """
    variant = get_variant(name)
    check_names(ResNet, fields)
    given = {key: value for key, value in fields.items() if value is not None}
    return ResNet(**{**variant.fields, **given})
