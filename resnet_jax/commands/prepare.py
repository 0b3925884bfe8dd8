"""`--mode=prepare`: packs a folder, a TFDS directory or ImageNet's tars into shards."""

import pathlib
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from resnet_jax import data
from resnet_jax.commands import Arguments, Verb
from resnet_jax.data.prepare import prepare as pack
from resnet_jax.distributed.lock import Lock
from resnet_jax.errors import UserError


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "source",
        "folder",
        "what --data_dir holds: folder, imagenet_tars, shards or a TFDS name",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir", None, "the directory of what is to be prepared", flag_values=values
    )
    flags.DEFINE_string("output_dir", None, "where the shards go", flag_values=values)
    flags.DEFINE_list(
        "splits", [], "splits to pack; default: training and evaluation", flag_values=values
    )
    flags.DEFINE_integer(
        "short_side", None, "shrink longer short sides to this many pixels", flag_values=values
    )
    flags.DEFINE_integer(
        "quality", 90, "JPEG quality of shrunken images, 1 to 100", flag_values=values
    )
    flags.DEFINE_integer("shard_examples", 4096, "images a shard", flag_values=values)
    flags.DEFINE_integer("num_threads", None, "threads; default: one a core", flag_values=values)
    flags.DEFINE_float(
        "eval_fraction", None, "share held out from a folder without splits", flag_values=values
    )


def prepare(
    name: str,
    data_dir: str | None,
    output_dir: str,
    *,
    splits: Sequence[str] = (),
    short_side: int | None = None,
    quality: int = 90,
    shard_examples: int = 4096,
    num_threads: int | None = None,
    eval_fraction: float | None = None,
) -> None:
    """Prepares shards and prints what they hold; the same command goes on where it was interrupted.

    Args:
      name: what to read: "folder", a TFDS name, "shards", or "imagenet_tars"
        (ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in one directory).
      data_dir: where that is.
      output_dir: where the shards go.
      splits: the splits to pack, parts of them too; none: the source's own for training and
        evaluation.
      short_side, quality, shard_examples, num_threads: as `data.prepare.prepare` takes them.
      eval_fraction: as `config.data.eval_fraction`.

    Raises:
      UserError: a value is out of range, a split is named twice, the source cannot be read, another
        process writes to the same directory, or the disk is full.
    """
    _check(name, data_dir, output_dir, short_side, quality, shard_examples, num_threads)
    if fault := data.FIELDS["eval_fraction"].fault(eval_fraction):
        raise UserError(f"--eval_fraction={eval_fraction}: {fault}")
    if eval_fraction is not None and name != "folder":
        raise UserError(
            f"--eval_fraction={eval_fraction}: holds out files of --source=folder only; leave it"
            " out"
        )
    sources = _sources(name, data_dir, eval_fraction, splits)
    for line in dict.fromkeys(line for source in sources.values() for line in source.notes):
        print(line)
    total = sum(map(len, sources.values()))
    with Lock(output_dir), tqdm(total=total, unit=" images", smoothing=0) as bar:
        counts = pack(
            sources,
            pathlib.Path(output_dir),
            short_side=short_side,
            quality=quality,
            shard_examples=shard_examples,
            num_threads=num_threads,
            origin={
                "data_dir": data_dir and str(pathlib.Path(data_dir).expanduser().resolve()),
                "eval_fraction": eval_fraction,
            },
            advance=bar.update,
            say=bar.write,
        )
    held = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(
        f"{output_dir}: {held}; train with --config.data.name=shards --config.data.dir={output_dir}"
    )


def _check(name, data_dir, output_dir, short_side, quality, shard_examples, num_threads) -> None:
    """Raises `UserError` for a flag's value that is out of range, or a directory that is none."""
    for flag, value, low, high in (
        ("short_side", short_side, 16, 8192),
        ("quality", quality, 1, 100),
        ("shard_examples", shard_examples, 1, 1 << 24),
        ("num_threads", num_threads, 1, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(f"--{flag}={value}: must be within {low}..{high}")
    if data_dir is None and name in ("folder", "shards", "imagenet_tars"):
        raise UserError(f"--data_dir is missing: name the directory of --source={name}")
    data.check_is_mounted("--data_dir", data_dir)
    data.check_is_mounted("--output_dir", output_dir)


def _sources(
    name: str, data_dir: str | None, eval_fraction: float | None, splits: Sequence[str]
) -> dict[str, data.Source]:
    """Opens the splits to pack: name of the whole split -> it, or the part of it."""
    sources = {}
    for train, split in [(None, split) for split in splits] or [(True, None), (False, None)]:
        source = _open(name, data_dir, eval_fraction, train, split)
        whole = source.split.partition("[")[0]
        if whole in sources:
            raise UserError(
                f"--splits={','.join(splits)}: takes {whole!r} twice; prepare each part into a"
                " directory of its own"
            )
        sources[whole] = source
    return sources


def _open(
    name: str,
    data_dir: str | None,
    eval_fraction: float | None,
    train: bool | None,
    split: str | None,
) -> data.Source:
    config = ConfigDict(
        {field: entry.default for field, entry in data.FIELDS.items()}, type_safe=False
    )
    config.update(name=name, dir=data_dir, eval_fraction=eval_fraction, train_split=split)
    data.check(config)
    return data.open_source(config, train is not False)


def main(arguments: Arguments) -> None:
    if arguments.output_dir is None:
        raise UserError("--output_dir is missing: name the directory that the shards go to")
    prepare(
        arguments.source,
        arguments.data_dir,
        arguments.output_dir,
        splits=arguments.splits,
        short_side=arguments.short_side,
        quality=arguments.quality,
        shard_examples=arguments.shard_examples,
        num_threads=arguments.num_threads,
        eval_fraction=arguments.eval_fraction,
    )


VERB = Verb(
    "packs a folder, a TFDS directory or ImageNet's tars into shards, shrunk if asked",
    main,
    define_flags,
    several_processes=False,
)
