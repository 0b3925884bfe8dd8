"""Every row of the table: parameters to the unit and multiply-adds, by the module, by arithmetic
and as published.
"""

import math
import re

import pytest
from running import slow_where

from resnet_jax import UserError, create_model, list_models
from resnet_jax.models.analysis.counting import count_params, trace
from resnet_jax.models.blocks import BasicBlock, BottleneckBlock
from resnet_jax.models.zoo import ALIASES, FIELDS, VARIANTS

# Parameters as torchvision 0.29.2, timm and pytorchcv publish them, or as sums over He et al. 2015,
# section 4.2.
PUBLISHED_PARAMS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnet50d": 25_576_264,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_resnet1202": 19_421_274,
    "cifar_resnet20b": 272_474,
    "cifar_resnet56b": 855_770,
    "cifar_resnet110b": 1_730_714,
    "cifar_resnet1202b": 19_424_026,
    "wide_resnet28_10": 36_479_194,
}

# Billions of multiply-adds at 224 (torchvision's `_ops`; v1 in He et al. 2015, table 1, as 3.8, 7.6
# and 11.3).
PUBLISHED_GMACS = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet50_v1": 3.858,
    "resnet101": 7.801,
    "resnet101_v1": 7.570,
    "resnet152": 11.514,
    "resnet152_v1": 11.282,
    "resnext50_32x4d": 4.230,
    "resnext101_32x8d": 16.414,
    "resnext101_64x4d": 15.460,
    "wide_resnet50_2": 11.398,
    "wide_resnet101_2": 22.753,
    "cifar_resnet20": 0.04055,
    "cifar_resnet110": 0.25289,
    "cifar_resnet1202": 2.829,
}


def total_macs(traced):
    return sum(layer.macs for layer in traced.layers)


def by_arithmetic(fields, image_size):
    """Parameters and multiply-adds from the papers' tables alone, for a 3-channel image, without
    the module.
    """
    get = {
        "block": "bottleneck",
        "version": "v1.5",
        "shortcut": "B",
        "stem": "imagenet",
        "width": 64,
    }.get
    value = {
        name: fields.get(name, get(name))
        for name in ("block", "version", "shortcut", "stem", "width")
    }
    pre, basic = value["version"] == "v2", value["block"] == "basic"
    params = macs = 0

    def conv(size, channels, features, side, groups=1, norm=True):
        nonlocal params, macs
        weights = size * size * channels // groups * features
        params += weights + (2 * features if norm else 0)
        macs += weights * side * side

    stem = fields.get("stem_width", value["width"])
    side = image_size if value["stem"] == "small" else image_size // 2
    if value["stem"] in ("deep", "tiered"):
        first = stem // 2 if value["stem"] == "deep" else stem * 3 // 8
        conv(3, 3, first, side)
        conv(3, first, stem // 2, side)
        conv(3, stem // 2, stem, side, norm=not pre)
    else:
        conv(7 if value["stem"] == "imagenet" else 3, 3, stem, side, norm=not pre)
    if value["stem"] != "small":
        side //= 2
        if fields.get("stem_pool") == "conv":
            conv(3, stem, stem, side)
    channels = stem
    for stage, blocks in enumerate(fields["stage_sizes"]):
        features = value["width"] * 2**stage
        out = features * (1 if basic else 4)
        for number in range(blocks):
            before = side
            side //= 2 if stage and not number else 1
            # An anti-aliased convolution strides in the pool that follows it.
            strided = before if "anti_alias" in fields else side
            # A v2 block normalises its convolutions' inputs: in all as many values, but for the
            # block's ends.
            params += 2 * (channels - out) if pre else 0
            if basic:
                conv(3, channels, features, strided)
                conv(3, features, features, side)
            else:
                groups = fields.get("groups", 1)
                width = features * fields.get("width_per_group", 64) // 64 * groups
                first = width // fields.get("reduce_first", 1)
                conv(1, channels, first, side if value["version"] == "v1" else before)
                conv(3, first, width, strided, groups)
                conv(1, width, out, side)
            if fields.get("se_ratio"):
                squeezed = max(8, round(out * fields["se_ratio"] / 8) * 8)
                params += 2 * out * squeezed + out + squeezed
                macs += 2 * out * squeezed
            if fields.get("eca"):
                taps = math.floor((math.log2(out) + 1) / 2)
                taps += 1 - taps % 2
                params, macs = params + taps, macs + taps * out
            changes = channels != out or before != side
            if fields.get("residual", True) and changes and value["shortcut"] != "A":
                size = fields.get("shortcut_size", 1) if before != side else 1
                conv(size, channels, out, side, norm=not pre)
            channels = out
    params += 2 * channels if pre else 0
    classes = fields.get("num_classes", 1000)
    return params + (channels + 1) * classes, macs + channels * classes


# Tracing takes as long as a network is deep, and its stages repeat what shallower ones have.
DEEP = re.compile(r"1\d\d\d|101|1[15]2|154|200|269|270|350|420")


@pytest.mark.parametrize("name", slow_where(DEEP.search, list_models()))
def test_row_counts(name):
    row = VARIANTS[name]
    traced = trace(create_model(name), row.image_size)
    assert count_params(traced.variables) == row.params
    assert total_macs(traced) == pytest.approx(row.macs, rel=1e-3)
    assert (row.params, row.macs) == by_arithmetic(row.fields, row.image_size)


def test_published_parameters_are_the_tables():
    assert {name: VARIANTS[name].params for name in PUBLISHED_PARAMS} == PUBLISHED_PARAMS


def test_published_multiply_adds_are_the_tables():
    for name, gmacs in PUBLISHED_GMACS.items():
        assert VARIANTS[name].macs / 1e9 == pytest.approx(gmacs, rel=1e-3), name


def test_scanned_and_unrolled_nets_count_the_same():
    model = create_model("cifar_resnet20", stochastic_depth=0.1)
    traced, plain = trace(model, 32), trace(model.clone(scan_blocks=False), 32)
    assert traced == plain


def test_a_basic_and_a_bottleneck_block_at_256_channels_have_the_papers_weights():
    # He et al. 2015, figure 5 scaled to 256 channels: 2 * 9 * 256^2, and 256 * 64 + 9 * 64^2 + 64 *
    # 256.
    import jax

    def weights(block):
        shapes = jax.eval_shape(
            lambda: block.init(jax.random.key(0), jax.numpy.zeros((1, 8, 8, 256)))
        )
        return sum(
            math.prod(layer["kernel"].shape)
            for layer in shapes["params"].values()
            if "kernel" in layer
        )

    assert weights(BasicBlock(features=256)) == 1_179_648
    assert weights(BottleneckBlock(features=64)) == 69_632


def test_grey_and_small_stem_counts_for_ten_classes():
    expected = {("imagenet", 3): 11_181_642, ("imagenet", 1): 11_175_370}
    expected |= {("small", 3): 11_173_962, ("small", 1): 11_172_810}
    for (stem, channels), count in expected.items():
        model = create_model("resnet18", num_classes=10, stem=stem)
        assert count_params(trace(model, 32, channels).variables) == count


def test_timm_spellings_are_aliases():
    for alias, name in ALIASES.items():
        assert create_model(alias) == create_model(name)
        assert alias not in list_models()


def test_an_unknown_name_suggests_aliases_and_names():
    with pytest.raises(UserError, match="resnetv2_50"):
        create_model("resnetv2_51")


def test_every_field_of_a_recipe_is_a_field_of_the_module_with_none_as_default():
    fields = set(vars(create_model("resnet18"))) | {"name"}
    assert set(FIELDS) <= fields
    assert all(field.default is None for name, field in FIELDS.items() if name != "name")
