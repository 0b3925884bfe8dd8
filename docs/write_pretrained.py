"""Writes docs/pretrained.md from `resnet_jax/pretrained.csv`, and that table from timm's results.

python docs/write_pretrained.py > docs/pretrained.md
python docs/write_pretrained.py results-imagenet.csv > resnet_jax/pretrained.csv  # needs timm

`results-imagenet.csv` is in `results/` of github.com/huggingface/pytorch-image-models.
"""

import csv
import sys

from resnet_jax.models.zoo import ALIASES, VARIANTS
from resnet_jax.pretrained import Pretrained, table

_HEAD = """# Pretrained networks

```python
import resnet_jax

model, variables, description = resnet_jax.load_pretrained("timm/resnet50.a1_in1k", size="test")
images = resnet_jax.preprocess(["cat.jpg", "dog.png"], description)  # [2, 288, 288, 3]
logits = model.apply(variables, images, train=False)
print([description.classes[best] for best in logits.argmax(-1)])
```

The name is that of a repository at the [Hugging Face hub](https://huggingface.co/timm), which is read through its own
cache (`pip install huggingface_hub`); `revision=` takes a branch, a tag or a commit. The directory of a downloaded
repository serves as well, without the package and without a network. Two forms are read: timm's, and that of
transformers' ResNetForImageClassification, such as `microsoft/resnet-50`. Weights come from safetensors; where a
repository has only PyTorch's pickles, PyTorch has to be installed.

`description` says how the network's images were prepared: `image_size`, `eval_size`, `crop`, `crop_mode`,
`interpolation`, `mean`, `std`; and what the weights are: `classes`, `licence`, `commit`, `digest`. timm gives many
networks two sizes. `size="train"`, the default as in timm, is the one that they were trained at; `size="test"` the one
that they score best at. `resnet_jax.preprocess` applies it, with one difference from timm's own transforms: a photograph
whose EXIF data asks for a rotation is rotated. A recipe starts from a repository with `init.weights`, see
[fine-tuning](finetune_folder.md).

**Mind the licence.** The weights that Facebook's researchers trained on Instagram and Flickr images (`fb_...`) forbid
commercial use. A licence here is what the weights' publisher states of them; the images that they learned from have
their own.

## Worth knowing

Each row is a repository whose network is one of [ours](models.md); `resnet_jax.list_pretrained("resnet50*")` gives the
names. Top-1 is the accuracy on ImageNet's 50,000 validation images that timm measured and publishes in its
`results-imagenet.csv`, at the size, crop and filter beside it; none was measured here. Of two sizes the better is shown.

`tv` and `tv2` are torchvision's weights, versions 1 and 2. `a1`, `a2`, `a3` (600, 300 and 100 epochs), `b1k`, `b2k`,
`c1`, `c2`, `c3`, `d` and those with an `h` are of "ResNet strikes back" (Wightman et al. 2021) and its successors,
`gluon` of "Bag of tricks" (He et al. 2019), `ra`, `ra2`, `ram`, `racm`, `am`, `bt`, `sw_in12k` (first trained on 11,821
classes of ImageNet) and `ra4_...` of timm's author, `tf` of "Revisiting ResNets" (Bello et al. 2021), `goog` of "Big
Transfer" (Kolesnikov et al. 2020; first trained on ImageNet-21k) and of "Knowledge distillation: a good teacher is
patient and consistent" (Beyer et al. 2022), `miil` of the authors of "TResNet" (Ridnik et al. 2021), `fb_ssl` and
`fb_swsl` of "Billion-scale semi-supervised learning" (Yalniz et al. 2019), `fb_wsl` of Mahajan et al. 2018.

"""

_TAIL = """
This page is written by `python docs/write_pretrained.py > docs/pretrained.md` from `resnet_jax/pretrained.csv`; a test
holds it to that.

## Files that fit a network which they were not made for

Names and shapes of arrays do not tell everything. These pairs take each other's files without a complaint and compute
another function; only a repository's `config.json`, or the tag in a file's name, decides. `load_pretrained` reads it,
`load_torch` takes your word for it.

| file made for | also fits | what differs |
|---|---|---|
| ResNet-50, 101, 152 of torchvision and timm (v1.5) | `resnet50_v1`, `resnet101_v1`, ... | the stride is in a block's 3x3, not in its first 1x1 |
| the first paper's Caffe nets, Keras' and MMLab's "caffe" style (v1) | `resnet50`, `resnet101`, ... | the reverse; their images are BGR besides, less a mean, not scaled |
| `resnetblur18`, `resnetblur50`, `resnetaa50` | `resnet18`, `resnet50`, and each other | a filter, without arrays of its own, goes before each stride: a blur, an average or none |
| `resnetblur50d`, `resnetaa50d`, `resnetaa34d`, `seresnextaa101d_32x8d`, ... | `resnet50d`, `resnet34d`, `seresnext101d_32x8d`, ..., and each other | the same |
| BiT, `resnetv2_50x1_bit`, ... | `resnet50_v2` with `norm="group"`, ... | kernels are standardised before they are used, and zeros border the max pool |
| `cifar_resnet20` to `cifar_resnet110` | `cifar_plain20` to `cifar_plain110` | plain nets lack the shortcuts, which here have no arrays |
| nets with another activation than ReLU | the same net with ReLU | activations have no arrays |
| `shortcut="A"` | `shortcut="A_pool"` | neither shortcut has arrays |
"""


def collect(results):
    """Yields a row for each of timm's weights for a network of ours, at the size it scores best."""
    # PyTorch's own build for CPUs lacks two operators whose mere names torchvision asks for.
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    best = {}
    for row in csv.DictReader(results):
        if float(row["top1"]) > float(best.get(row["model"], {"top1": 0})["top1"]):
            best[row["model"]] = row
    for name in timm.list_pretrained():
        network = ALIASES.get(name.partition(".")[0], name.partition(".")[0])
        if network in VARIANTS and name in best:
            given, row = timm.get_pretrained_cfg(name), best[name]
            yield Pretrained(
                given.hf_hub_id or f"timm/{name}",
                network,
                given.input_size[-1],
                int(row["img_size"]),
                float(row["crop_pct"]),
                row["interpolation"],
                float(row["top1"]),
                given.license or "unknown",
                given.origin_url or "",
            )


def write_page():
    """Returns docs/pretrained.md."""
    order = {name: number for number, name in enumerate(VARIANTS)}
    lines = [
        "| repository | network | trained at | top-1 | at | crop | filter | licence | from |",
        "|---|---|--:|--:|--:|--:|---|---|---|",
    ]
    for row in sorted(table(), key=lambda row: (order[row.network], -row.top1)):
        origin = row.origin.removeprefix("https://").removesuffix(".html")
        lines.append(
            f"| `{row.name}` | `{row.network}` | {row.train_size} | {row.top1:.2f} | {row.size} |"
            f" {row.crop:g} | {row.interpolation} | {row.licence} | {origin or 'timm'} |"
        )
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def main():
    if len(sys.argv) == 1:
        print(write_page(), end="")
        return
    with open(sys.argv[1]) as results:
        rows = sorted(collect(results))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(Pretrained._fields)
    writer.writerows(rows)


if __name__ == "__main__":
    main()
