"""Writes the page on the whole family: `python docs/write_models.py > docs/models.md`."""

import dataclasses

from resnet_jax.models import ResNet
from resnet_jax.models.variants import ALIASES, VARIANTS, Variant

_HEAD = """# The networks

Every name that `resnet_jax.list_models()` gives and `resnet_jax.create_model(name)` builds. This page is written by
`python docs/write_models.py > docs/models.md`; a test holds it to the table in `resnet_jax/models/variants.py`.

Parameters are exact. Multiply-adds (MACs; papers call them FLOPs, and a MAC is two floating-point operations) are of
one forward pass of one image of the size shown. "Counts" says whose own modules gave the reference that the tests hold
the networks to; "the paper's layers" is the sum over its table of layers, which the tests redo for every row.

`_v1` strides in a bottleneck's first 1x1 as the first paper does, which is where "3.8 GFLOPs" for ResNet-50 comes from;
the names without a suffix stride in the 3x3 (v1.5), as torchvision does: 4.1. `_v2` is full pre-activation. `c` has the
deep stem, `s` one of twice the width, `t` a tiered one; `d` and `t` also pool before the shortcut's projection.
`resnetaa` and `resnetblur` are anti-aliased, `ecaresnet` and `seresnet` have gates, `_bit` are Big Transfer's.
`cifar_resnet20` has the shortcuts of the paper (option A), `cifar_resnet20b` projections (option B).

| name | parameters | GMACs | image | architecture | counts |
|---|--:|--:|--:|---|---|
"""

_TAIL = """
timm's spellings are aliases: {aliases}.

## Fields

Every field of `ResNet` can be set on any name, in Python (`create_model("resnet50", norm="group")`) or in a recipe
(`--config.model.norm=group`; None leaves the default). `axis_name` and `conv` are for Python alone, and so are `dtype`
and `param_dtype`, for which a recipe has `precision`. `resnet_jax.ResNet` alone builds what has no name, any number of
stages included. `python launch.py --mode=summarize --model=NAME` prints a network stage by stage. How to use the
networks in a program of your own, and how to bring weights: [importing](importing.md).

| field | default | what it says |
|---|---|---|
{fields}

## What follows the papers, and what does not

- Residual branches start at zero (Goyal et al. 2017) unless `zero_init=False`, also where the first papers did not.
- A v2 identity shortcut carries the raw map, as timm's does; the paper activates once before the first block splits.
- Option A adds its zero channels after the others and takes every second pixel; `A_pool` averages 2x2 pixels instead.
- An anti-aliased map of odd size is rounded up, so that it fits its shortcut; timm rounds its average pool down, and
  refuses such images.
- Where a dilation takes the place of D's stride (`output_stride`), its 2x2 pool averages each pixel with the next ones
  and with zeros beyond the edge, as timm's does.
- `cifar_resnet1202` and `cifar_resnet1001_v2` compile equal blocks once, as a loop (`scan_blocks`): without it XLA does
  not finish in minutes. A loop runs slower than the blocks one by one on a CPU, so shallower nets do without.
"""


def write_page() -> str:
    """Returns docs/models.md, from the table that the tests hold every network to."""
    rows = [_row(variant) for variant in VARIANTS.values()]
    aliases = ", ".join(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())
    fields = "\n".join(filter(None, map(_field, dataclasses.fields(ResNet))))
    tail = _TAIL.format(aliases=aliases, fields=fields)
    return _HEAD + "\n".join(rows) + "\n" + tail


def _field(field: dataclasses.Field) -> str:
    if "field" not in field.metadata:  # Flax's own two
        return ""
    default = getattr(field.default, "__name__", field.default)
    more = field.metadata["more"]
    return f"| `{field.name}` | {default} | {field.metadata['field'].help}{more and '; '}{more} |"


def _row(variant: Variant) -> str:
    cells = (
        f"`{variant.name}`",
        f"{variant.params:,}",
        f"{variant.macs / 1e9:.3f}",
        str(variant.image_size),
        variant.paper,
        variant.counts,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(write_page(), end="")
