"""The recipe: every field with its type and default, its validation, and its form on disk."""

import json
import types
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from resnet_jax import data, fields
from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field
from resnet_jax.models import ResNet, zoo
from resnet_jax.models.interop import fields as init_fields
from resnet_jax.training import average, distillation, loss, optimizer, schedule
from resnet_jax.training.checkpointing import checkpoints

FIELDS = {
    "seed": Field(
        0,
        "of the initial parameters, the order of the data, augmentation and dropout",
        at_least=0,
        at_most=2**32 - 1,
    ),
    "batch_size": Field(256, "images a step, over all devices together", above=0),
    "accumulate_steps": Field(1, "parts that a batch is split into to fit in memory", above=0),
    "num_epochs": Field(90.0, "length of the run, may be a fraction", above=0),
    "precision": Field(
        "auto",
        "arithmetic of the network; auto: bfloat16 on GPU and TPU, float32 on CPU",
        choices=("auto", "float32", "bfloat16", "float16", "float64"),
    ),
    "deterministic": Field(
        False, "ask XLA for bit-for-bit repeatable kernels on GPUs, which are slower"
    ),
    "eval_batch_size": Field(
        None, "images an evaluation step; None: batch_size", type=int, above=0
    ),
    "eval_every_epochs": Field(
        1.0, "epochs between evaluations; the end is always evaluated", above=0
    ),
    "stop_at_top1": Field(
        None,
        "end the run at the first evaluation with at least this top-1, a fraction",
        float,
        above=0,
        at_most=1,
    ),
    "log_every_steps": Field(100, "steps between lines of the training log", above=0),
    "keep_thumbnails": Field(
        64,
        "evaluation images that the run keeps as its network sees them, for a report without the"
        " data; 0: none",
        at_least=0,
        at_most=1024,
    ),
}

SECTIONS = {
    "model": zoo.FIELDS,
    "data": data.FIELDS,
    "optimizer": optimizer.FIELDS,
    "schedule": schedule.FIELDS,
    "loss": loss.FIELDS,
    "ema": average.FIELDS,
    "distill": distillation.FIELDS,
    "checkpoint": checkpoints.FIELDS,
    "init": init_fields.FIELDS,
}

# A run may go on although these differ: they do not change what it learns.
HARMLESS = {"eval_batch_size", "log_every_steps", "keep_thumbnails", "ema.score_both"}
HARMLESS |= {"data.dir", "data.num_threads", "data.prefetch"}
HARMLESS |= {f"checkpoint.{name}" for name in checkpoints.FIELDS}

PRECISIONS = {  # precision -> dtype of the arithmetic, dtype of parameters and statistics
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "float16": ("float16", "float32"),
    "float64": ("float64", "float64"),
}


# What people write who come from elsewhere, and what it is here.
_SYNONYMS: dict[str, str] = dict.fromkeys(
    ("lr", "learning_rate", "rate", "base_lr", "peak_lr"), "schedule.base_lr"
)


class Section(ConfigDict):
    """A recipe, or a section of it, whose fields take a number in whatever form it was computed.

    A field keeps its type, also while it is None or where NumPy computed it, so that the command
    line can override it.
    """

    _name, _table = "", types.MappingProxyType({})

    @classmethod
    def of(cls, name: str, table: Mapping[str, Field]) -> "Section":
        """Returns the section `name` with every field of `table` at its default."""
        section = cls()
        # ConfigDict would take a plain assignment for a field.
        for attribute, value in (("_name", name), ("_table", table)):
            object.__setattr__(section, attribute, value)
        for field_name, field in table.items():
            kind = tuple if field.is_tuple else field.kind
            section[field_name] = config_dict.FieldReference(field.default, field_type=kind)
        return section

    def __setitem__(self, key: str, value: Any) -> None:
        field = self._table.get(key)
        # A reference comes from `of` alone, with a default that the table has checked.
        if field is not None and not isinstance(value, config_dict.FieldReference):
            value = field.plain(value)
            if fault := field.type_fault(value):
                name = f"{self._name}.{key}".lstrip(".")
                raise UserError(f"config.{name} = {value!r}: {fault} ({field.help})")
        super().__setitem__(key, value)


def defaults() -> ConfigDict:
    """Returns every field at its default; a recipe starts from it and changes what it changes."""
    config = Section.of("", FIELDS)
    for name, table in SECTIONS.items():
        config[name] = Section.of(name, table)
    return config.lock()


def field_of(dotted: str) -> Field:
    """Returns the `Field` of a dotted name, for example "schedule.base_lr".

    Raises:
      UserError: there is none; the message suggests the nearest.
    """
    room, _, name = dotted.rpartition(".")
    table = FIELDS if not room else SECTIONS.get(room, {})
    if name not in table:
        known = _SYNONYMS.get(name)
        remedy = f"did you mean {known!r}?" if known else nearest(dotted, _all_names())
        raise UserError(f"config.{dotted} is not a field; {remedy}".rstrip("; "))
    return table[name]


def _all_names() -> list[str]:
    return [*FIELDS, *(f"{room}.{name}" for room, table in SECTIONS.items() for name in table)]


def _section(config: ConfigDict, name: str) -> Any:
    """Returns a section of a recipe; "" is the recipe itself."""
    return config[name] if name else config


def check_fields(config: ConfigDict) -> None:
    """Checks every field by itself; raises `UserError` as `validate` does."""
    flat = dict(flatten(config))
    for dotted in flat:
        field_of(dotted)
    # A recipe that built its own ConfigDict instead of changing the defaults.
    if absent := [dotted for dotted in _all_names() if dotted not in flat]:
        raise UserError(
            f"config.{absent[0]} is missing; start the recipe from resnet_jax.config.defaults()"
        )
    fields.check("", {name: flat[name] for name in FIELDS}, FIELDS)
    for room, table in SECTIONS.items():
        fields.check(room, _section(config, room), table)


def validate(config: ConfigDict) -> None:
    """Checks every field, and the fields against each other, before anything is allocated.

    Raises:
      UserError: names the dotted field, the value and the remedy.
    """
    check_fields(config)
    schedule.check(config.schedule)
    data.check(config.data)
    if config.batch_size % config.accumulate_steps:
        raise UserError(
            f"config.accumulate_steps = {config.accumulate_steps}: must divide config.batch_size ="
            f" {config.batch_size}"
        )
    # A network checks its own fields when it is built, which allocates nothing.
    _check_sizes(config, build_model(config))


def _check_sizes(config: ConfigDict, model: ResNet) -> None:
    sizes, least = tuple(config.data.progressive_sizes), model.smallest_image()
    if sizes and sizes[0] < least:
        raise UserError(
            f"config.data.progressive_sizes = {sizes!r}: too small for the strides of"
            f" {config.model.name}, whose images need {least} pixels a side; begin with a larger"
            " size"
        )


def without_effect(config: ConfigDict) -> dict[str, str]:
    """Returns dotted name -> why, for each field that has no effect beside the others."""
    return {
        name: why
        for section, table in SECTIONS.items()
        for name, why in fields.without_effect(section, _section(config, section), table).items()
    }


def warnings(config: ConfigDict) -> list[str]:
    """Returns a line for each field that is not at its default, though it has no effect."""
    values = dict(flatten(config))
    # What an older recipe was given for a field that it does not have, nobody set.
    given = {f"data.{name}": value for name, value in data.BEFORE.items()}
    return [
        f"config.{name} = {values[name]!r} has no effect: {why}"
        for name, why in without_effect(config).items()
        if values[name] not in (_as_on_disk(field_of(name).default), given.get(name))
    ]


def _as_on_disk(value: Any) -> Any:
    # JSON has no tuples, and a field read from it must equal the one that was written.
    return list(value) if isinstance(value, tuple) else value


def check_batch(config: ConfigDict, devices: int) -> None:
    """Checks that a batch divides over the devices, and its share there into the parts.

    Raises:
      UserError: it does not; the message names a number that does.
    """
    if config.batch_size % devices:
        near = max(devices, round(config.batch_size / devices) * devices)
        raise UserError(
            f"config.batch_size = {config.batch_size}: must be divisible by the {devices} devices,"
            f" for example {near}"
        )
    if config.batch_size // devices % config.accumulate_steps:
        raise UserError(
            f"config.accumulate_steps = {config.accumulate_steps}: must divide the"
            f" {config.batch_size // devices} images of each device"
        )


def build_model(config: ConfigDict) -> ResNet:
    """Builds the network of a recipe; `precision` "auto" counts as float32.

    Raises:
      UserError: the name is unknown or its fields contradict each other.
    """
    dtype, param_dtype = PRECISIONS.get(config.precision, PRECISIONS["float32"])
    # None leaves a field to the named network.
    given = {name: value for name, value in config.model.items() if value is not None}
    name = given.pop("name")
    return zoo.create_model(name, **{"dtype": dtype, "param_dtype": param_dtype, **given})


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) for every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _as_on_disk(value)


def to_json(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Reads what `to_json` wrote; a field that it lacks is as it was before there was the field.

    Raises:
      UserError: it holds a field that does not exist.
    """
    config = defaults()
    # Fields whose default is no longer what older versions did.
    config.data.update(data.BEFORE)
    for dotted, value in flatten(json.loads(text)):
        set_field(config, dotted, value)
    return config


def copy_of(config: ConfigDict) -> ConfigDict:
    """Returns a recipe of its own with the same fields."""
    return from_json(to_json(config))


def set_field(config: ConfigDict, dotted: str, value: Any) -> None:
    """Sets a field by its dotted name; a list becomes the tuple that the field holds."""
    field_of(dotted)
    room, _, name = dotted.rpartition(".")
    _section(config, room)[name] = value


def is_open(dotted: str, value: Any) -> bool:
    """Whether a value leaves it to the data, the devices or the run on disk what a field is."""
    return (dotted, value) == ("precision", "auto") or (
        value is None and field_of(dotted).default is None
    )


def differences(
    old: ConfigDict, new: ConfigDict, accepted: Container[str] = ()
) -> list[tuple[str, str]]:
    """Returns the fields that keep a run of recipe `old` from going on with `new`.

    Each is its dotted name and a clause that says what it is and was.

    An open field of `new` stands for what the run has, unless `accepted` names it; `num_epochs` may
    grow; `accumulate_steps` may change, so that a run can move to devices of other memory.
    """
    old_fields, clauses = dict(flatten(old)), []
    for name, value in flatten(new):
        before = old_fields[name]
        if value == before or name in HARMLESS:
            continue
        if is_open(name, value) and name not in accepted:
            continue
        if (name == "num_epochs" and value > before) or name == "accumulate_steps":
            continue
        clauses.append((name, f"config.{name} is {value!r}, the run has {before!r}"))
    return clauses
