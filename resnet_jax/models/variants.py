"""The table of variants: what each name sets, its counts, and where they are from."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any


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


def _family(paper: str, shared: dict[str, Any], *rows: tuple) -> list[Variant]:
    size = 32 if shared.get("stem") == "small" else 224
    return [
        Variant(name, shared | fields, params, macs, paper, *(counts or [_TIMM]), size)
        for name, fields, params, macs, *counts in rows
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
_WU = "Wu and He 2018, Group Normalization"
_BIT = "Kolesnikov et al. 2020, Big Transfer"
_ZHANG = "Zhang 2019, Making Convolutional Networks Shift-Invariant Again"
_LEE = "Lee et al. 2020, Compounding Assembled Techniques; as in timm"
_WANG = "Wang et al. 2020, ECA-Net"
_TIERED = "Wightman, timm: He et al. 2019 with a tiered stem"

# Counted by these libraries' own modules; the rest are sums over the paper's layers, which the
# tests redo.
_TV, _TIMM, _PCV = "torchvision 0.29.2", "timm 1.0.31", "pytorchcv 0.0.74"
_SUM = "the paper's layers"

_BASIC = {"block": "basic"}
_OPTION_A = _BASIC | {"shortcut": "A"}
_SE = {"se_ratio": 1 / 16}
_DEEP_D = {"stem": "deep", "shortcut": "D"}
_TIERED_D = {"stem": "tiered", "shortcut": "D"}
_32X4, _32X8, _64X4 = _groups(32, 4), _groups(32, 8), _groups(64, 4)
_SENET = {"stem": "deep", "stem_width": 128, "shortcut_size": 3, "reduce_first": 2}
_AA201 = {"stage_sizes": (3, 24, 36, 4), "stem_width": 128}
_BIT_FIELDS = {"version": "v2", "norm": "group", "standardize": True, "stem_pool": "max_zeros"}
_SCAN = {"scan_blocks": True}
_CIFAR = {"stem": "small", "width": 16, "num_classes": 10}
_DEPTH = {
    10: {"stage_sizes": (1, 1, 1, 1), **_BASIC},
    14: {"stage_sizes": (1, 1, 1, 1)},
    18: {"stage_sizes": (2, 2, 2, 2), **_BASIC},
    26: {"stage_sizes": (2, 2, 2, 2)},
    34: {"stage_sizes": (3, 4, 6, 3), **_BASIC},
    50: {"stage_sizes": (3, 4, 6, 3)},
    101: {"stage_sizes": (3, 4, 23, 3)},
    152: {"stage_sizes": (3, 8, 36, 3)},
    200: {"stage_sizes": (3, 24, 36, 3)},
    269: {"stage_sizes": (3, 30, 48, 8)},
}

_ROWS = (
    *_family(
        _HE_2015,
        {},
        ("resnet26", _DEPTH[26], 15_995_176, 2_342_256_640),
        ("resnet18", _DEPTH[18], 11_689_512, 1_814_073_344, _TV),
        ("resnet34", _DEPTH[34], 21_797_672, 3_663_761_408, _TV),
        ("resnet50", _DEPTH[50], 25_557_032, 4_089_184_256, _TV),
        ("resnet101", _DEPTH[101], 44_549_160, 7_801_405_440, _TV),
        ("resnet152", _DEPTH[152], 60_192_808, 11_513_626_624, _TV),
    ),
    *_family(_HE_2016, {}, ("resnet200", _DEPTH[200], 64_673_832, 15_007_481_856)),
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
        ("resnet18_v2", _DEPTH[18], 11_687_720, 1_814_073_344),
        ("resnet34_v2", _DEPTH[34], 21_795_880, 3_663_761_408),
        ("resnet50_v2", _DEPTH[50], 25_549_352, 4_089_184_256),
        ("resnet101_v2", _DEPTH[101], 44_541_480, 7_801_405_440),
        ("resnet152_v2", _DEPTH[152], 60_185_128, 11_513_626_624),
        ("resnet200_v2", _DEPTH[200], 64_666_152, 15_007_481_856, _SUM),
    ),
    *_family(
        _BAG_OF_TRICKS,
        {"stem": "deep"},
        ("resnet50c", _DEPTH[50], 25_576_264, 4_328_824_832),
        ("resnet101c", _DEPTH[101], 44_568_392, 8_041_046_016),
        ("resnet152c", _DEPTH[152], 60_212_040, 11_753_267_200),
    ),
    *_family(
        _BAG_OF_TRICKS,
        _DEEP_D,
        ("resnet26d", _DEPTH[26], 16_014_408, 2_581_897_216),
        ("resnet18d", _DEPTH[18], 11_708_744, 2_053_713_920),
        ("resnet34d", _DEPTH[34], 21_816_904, 3_903_401_984),
        ("resnet50d", _DEPTH[50], 25_576_264, 4_328_824_832),
        ("resnet101d", _DEPTH[101], 44_568_392, 8_041_046_016),
        ("resnet152d", _DEPTH[152], 60_212_040, 11_753_267_200),
        ("resnet200d", _DEPTH[200], 64_693_064, 15_247_122_432),
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
        ("resnext50_32x4d", _DEPTH[50] | _32X4, 25_028_904, 4_230_479_872, _TV),
        ("resnext101_32x4d", _DEPTH[101] | _32X4, 44_177_704, 7_969_996_800),
        ("resnext101_32x8d", _DEPTH[101] | _32X8, 88_791_336, 16_414_015_488, _TV),
        ("resnext101_32x16d", _DEPTH[101] | _groups(32, 16), 194_026_792, 36_163_289_088),
        ("resnext101_32x32d", _DEPTH[101] | _groups(32, 32), 468_530_472, 87_106_781_184),
        ("resnext50d_32x4d", _DEPTH[50] | _32X4 | _DEEP_D, 25_048_136, 4_470_120_448),
        ("resnext101_64x4d", _DEPTH[101] | _64X4, 83_455_272, 15_460_270_080, _TV),
    ),
    *_family(
        _ZAGORUYKO,
        {"width_per_group": 128},
        ("wide_resnet50_2", _DEPTH[50], 68_883_240, 11_398_021_120, _TV),
        ("wide_resnet101_2", _DEPTH[101], 126_886_696, 22_753_050_624, _TV),
    ),
    *_family(
        _HU,
        _SE,
        ("seresnet18", _DEPTH[18], 11_779_624, 1_814_161_408),
        ("seresnet34", _DEPTH[34], 21_960_416, 3_663_920_128),
        ("seresnet50", _DEPTH[50], 28_088_024, 4_091_699_200),
        ("seresnet101", _DEPTH[101], 49_326_872, 7_806_148_608),
        ("seresnet152", _DEPTH[152], 66_821_848, 11_520_204_800),
        ("seresnext50_32x4d", _DEPTH[50] | _32X4, 27_559_896, 4_232_994_816),
        ("seresnext101_32x4d", _DEPTH[101] | _32X4, 48_955_416, 7_974_739_968),
        ("seresnext101_32x8d", _DEPTH[101] | _32X8, 93_569_048, 16_418_758_656),
        ("seresnext101_64x4d", _DEPTH[101] | _64X4, 88_232_984, 15_465_013_248),
        ("seresnet50t", _DEPTH[50] | _TIERED_D, 28_104_720, 4_299_728_896),
        ("seresnet152d", _DEPTH[152] | _DEEP_D, 66_841_080, 11_759_845_376),
        ("seresnet200d", _DEPTH[200] | _DEEP_D, 71_855_096, 15_254_224_896),
        ("seresnet269d", _DEPTH[269] | _DEEP_D, 113_672_760, 20_281_032_704),
        ("seresnext26d_32x4d", _DEPTH[26] | _32X4 | _DEEP_D, 16_809_512, 2_711_740_416),
        ("seresnext26t_32x4d", _DEPTH[26] | _32X4 | _TIERED_D, 16_806_976, 2_680_129_536),
        ("seresnext101d_32x8d", _DEPTH[101] | _32X8 | _DEEP_D, 93_588_280, 16_658_399_232),
        ("senet154", _DEPTH[152] | _64X4 | _SENET, 115_088_984, 20_688_363_520),
    ),
    *_family(
        _BAG_OF_TRICKS,
        {"stem": "deep", "stem_width": 128},
        ("resnet50s", _DEPTH[50], 25_680_808, 5_444_337_664),
        ("resnet101s", _DEPTH[101], 44_672_936, 9_156_558_848),
        ("resnet152s", _DEPTH[152], 60_316_584, 12_868_780_032),
    ),
    *_family(
        _TIERED,
        _TIERED_D,
        ("resnet10t", _DEPTH[10], 5_435_488, 1_097_259_008),
        ("resnet14t", _DEPTH[14], 10_081_632, 1_676_822_528),
        ("resnet26t", _DEPTH[26], 16_011_872, 2_550_286_336),
        ("resnet50t", _DEPTH[50], 25_573_728, 4_297_213_952),
    ),
    *_family(
        _HE_2016,
        _DEEP_D | {"version": "v2"},
        ("resnet18d_v2", _DEPTH[18], 11_706_952, 2_053_713_920),
        ("resnet34d_v2", _DEPTH[34], 21_815_112, 3_903_401_984),
        ("resnet50d_v2", _DEPTH[50], 25_568_584, 4_328_824_832),
        ("resnet101d_v2", _DEPTH[101], 44_560_712, 8_041_046_016),
        ("resnet152d_v2", _DEPTH[152], 60_204_360, 11_753_267_200),
        ("resnet50d_gn_v2", _DEPTH[50] | {"norm": "group"}, 25_568_584, 4_328_824_832),
        ("resnet50t_v2", _DEPTH[50] | {"stem": "tiered"}, 25_566_048, 4_297_213_952),
    ),
    *_family(_WU, {"norm": "group"}, ("resnet50_gn", _DEPTH[50], 25_557_032, 4_089_184_256)),
    *_family(
        _BIT,
        _BIT_FIELDS,
        ("resnetv2_50x1_bit", _DEPTH[50], 25_549_352, 4_089_184_256),
        ("resnetv2_50x3_bit", _DEPTH[50] | {"width": 192}, 217_319_080, 36_082_286_592),
        ("resnetv2_101x1_bit", _DEPTH[101], 44_541_480, 7_801_405_440),
        ("resnetv2_101x3_bit", _DEPTH[101] | {"width": 192}, 387_934_888, 69_492_277_248),
        ("resnetv2_152x2_bit", _DEPTH[152] | {"width": 128}, 236_335_208, 45_814_382_592),
        ("resnetv2_152x4_bit", _DEPTH[152] | {"width": 256}, 936_533_224, 182_777_282_560),
    ),
    *_family(
        _ZHANG,
        {"anti_alias": "blur"},
        ("resnetblur18", _DEPTH[18], 11_689_512, 2_334_298_112),
        ("resnetblur50", _DEPTH[50], 25_557_032, 5_129_633_792),
        ("resnetblur50d", _DEPTH[50] | _DEEP_D, 25_576_264, 5_369_274_368),
        ("resnetblur101d", _DEPTH[101] | _DEEP_D, 44_568_392, 9_081_495_552),
    ),
    *_family(
        _LEE,
        {"anti_alias": "average"},
        ("resnetaa50", _DEPTH[50], 25_557_032, 5_129_633_792),
        ("resnetaa34d", _DEPTH[34] | _DEEP_D, 21_816_904, 4_423_626_752),
        ("resnetaa50d", _DEPTH[50] | _DEEP_D, 25_576_264, 5_369_274_368),
        ("resnetaa101d", _DEPTH[101] | _DEEP_D, 44_568_392, 9_081_495_552),
        ("seresnetaa50d", _DEPTH[50] | _DEEP_D | _SE, 28_107_256, 5_371_789_312),
        ("seresnextaa101d_32x8d", _DEPTH[101] | _32X8 | _DEEP_D | _SE, 93_588_280, 17_178_624_000),
        ("seresnextaa201d_32x8d", _AA201 | _32X8 | _DEEP_D | _SE, 149_394_904, 34_276_270_080),
    ),
    *_family(
        _WANG,
        {"eca": True, "shortcut": "D"},
        ("ecaresnetlight", {"stage_sizes": (1, 1, 11, 3)}, 30_162_046, 4_089_287_424),
        ("ecaresnet50d", _DEPTH[50] | _DEEP_D, 25_576_350, 4_328_912_640),
        ("ecaresnet101d", _DEPTH[101] | _DEEP_D, 44_568_563, 8_041_220_864),
        ("ecaresnet200d", _DEPTH[200] | _DEEP_D, 64_693_400, 15_247_415_040),
        ("ecaresnet269d", _DEPTH[269] | _DEEP_D, 102_093_077, 20_269_980_416),
        ("ecaresnet26t", _DEPTH[26] | _TIERED_D, 16_011_916, 2_550_332_928),
        ("ecaresnet50t", _DEPTH[50] | _TIERED_D, 25_573_814, 4_297_301_760),
        ("ecaresnext26t_32x4d", _DEPTH[26] | _TIERED_D | _32X4, 15_406_220, 2_678_783_488),
        ("ecaresnext50t_32x4d", _DEPTH[50] | _TIERED_D | _32X4, 25_045_686, 4_438_597_376),
    ),
    *_family(
        _BELLO,
        _DEEP_D | {"stem_pool": "conv", "se_ratio": 1 / 4},
        ("resnet_rs50", _DEPTH[50], 35_691_912, 4_454_490_112),
        ("resnet_rs101", _DEPTH[101], 63_618_696, 8_175_624_192),
        ("resnet_rs152", _DEPTH[152], 86_621_576, 11_895_185_408),
        ("resnet_rs200", _DEPTH[200], 93_209_992, 15_391_137_792),
        ("resnet_rs270", {"stage_sizes": (4, 29, 53, 4)}, 129_861_448, 20_643_618_816),
        ("resnet_rs350", {"stage_sizes": (4, 36, 72, 4)}, 163_956_168, 26_332_012_544),
        ("resnet_rs420", {"stage_sizes": (4, 44, 87, 4)}, 191_891_656, 31_363_342_336),
    ),
    *_family(
        _HE_2015,
        _CIFAR | _OPTION_A,
        ("cifar_resnet20", _equal(3), 269_722, 40_551_040, _SUM),
        ("cifar_resnet32", _equal(5), 464_154, 68_862_592, _SUM),
        ("cifar_resnet44", _equal(7), 658_586, 97_174_144, _SUM),
        ("cifar_resnet56", _equal(9), 853_018, 125_485_696, _SUM),
        ("cifar_resnet110", _equal(18), 1_727_962, 252_887_680, _SUM),
        ("cifar_resnet1202", _equal(200) | _SCAN, 19_421_274, 2_829_238_912, _SUM),
    ),
    *_family(
        _HE_2015,
        _CIFAR | _BASIC,
        ("cifar_resnet20b", _equal(3), 272_474, 40_813_184, _PCV),
        ("cifar_resnet32b", _equal(5), 466_906, 69_124_736, _SUM),
        ("cifar_resnet44b", _equal(7), 661_338, 97_436_288, _SUM),
        ("cifar_resnet56b", _equal(9), 855_770, 125_747_840, _PCV),
        ("cifar_resnet110b", _equal(18), 1_730_714, 253_149_824, _PCV),
        ("cifar_resnet1202b", _equal(200) | _SCAN, 19_424_026, 2_829_501_056, _PCV),
    ),
    *_family(
        _HE_2015,
        _CIFAR | _BASIC | {"residual": False},
        ("cifar_plain20", _equal(3), 269_722, 40_551_040, _SUM),
        ("cifar_plain32", _equal(5), 464_154, 68_862_592, _SUM),
        ("cifar_plain44", _equal(7), 658_586, 97_174_144, _SUM),
        ("cifar_plain56", _equal(9), 853_018, 125_485_696, _SUM),
        ("cifar_plain110", _equal(18), 1_727_962, 252_887_680, _SUM),
    ),
    *_family(
        _HE_2016,
        _CIFAR | {"version": "v2"},
        ("cifar_resnet110_v2", _equal(18) | _OPTION_A, 1_727_962, 252_887_680, _SUM),
        ("cifar_resnet164_v2", _equal(18), 1_703_258, 247_646_720, _PCV),
        ("cifar_resnet1001_v2", _equal(111) | _SCAN, 10_327_706, 1_490_995_712, _PCV),
    ),
    *_family(
        _ZAGORUYKO,
        _CIFAR | _BASIC | {"version": "v2", "stem_width": 16},
        ("wide_resnet16_8", _equal(2) | {"width": 128}, 10_961_370, 1_548_145_664, _SUM),
        ("wide_resnet28_10", _equal(4) | {"width": 160}, 36_479_194, 5_243_328_768, _PCV),
    ),
    *_family(
        _XIE,
        _CIFAR | _equal(3) | {"width": 64},
        ("cifar_resnext29_8x64d", _groups(8, 64), 34_426_698, 5_387_266_048, _SUM),
        ("cifar_resnext29_16x64d", _groups(16, 64), 68_155_210, 10_688_866_304, _PCV),
    ),
)
VARIANTS: Mapping[str, Variant] = types.MappingProxyType({row.name: row for row in _ROWS})

# timm's spellings of the same networks.
ALIASES: Mapping[str, str] = types.MappingProxyType(
    {
        **{f"resnetv2_{depth}": f"resnet{depth}_v2" for depth in (18, 34, 50, 101, 152)},
        **{f"resnetv2_{depth}d": f"resnet{depth}d_v2" for depth in (18, 34, 50, 101, 152)},
        "resnetv2_50d_gn": "resnet50d_gn_v2",
        "resnetv2_50t": "resnet50t_v2",
        **{f"resnetrs{depth}": f"resnet_rs{depth}" for depth in (50, 101, 152, 200, 270, 350, 420)},
    }
)
