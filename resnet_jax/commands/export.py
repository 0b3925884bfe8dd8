"""`--mode=export`: a network as a file that runs without this package."""

from pathlib import Path

from absl import flags

from resnet_jax.classifier import Named
from resnet_jax.commands import Arguments, Verb, define_network_flags, local_directory
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.exporting.export import export
from resnet_jax.exporting.formats import FORMATS
from resnet_jax.exporting.network import Network, Settings


def define_flags(values: flags.FlagValues) -> None:
    define_network_flags(values)
    flags.DEFINE_enum("format", None, list(FORMATS), "what to write", flag_values=values)
    flags.DEFINE_string(
        "output_dir",
        None,
        "where to; default: export/FORMAT in the run, else exports/NAME/FORMAT",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "fold", False, "fold BatchNorm into the convolutions before it", flag_values=values
    )
    flags.DEFINE_bool(
        "raw",
        False,
        "normalised images in and logits out, not pixels and probabilities",
        flag_values=values,
    )
    flags.DEFINE_integer("opset", None, "of ONNX's operators; default: 17", flag_values=values)


def main(arguments: Arguments) -> None:
    form = arguments.required("format", f"one of {', '.join(FORMATS)}")
    named = Named.of(arguments)
    settings = Settings(form, arguments.fold, arguments.raw, arguments.opset)
    output_dir = arguments.output_dir or _usual_directory(arguments, form)
    directory = local_directory("output_dir", output_dir)
    prepare_runtime(named.precision)
    export(Network.of(*named.load()), settings, directory)


def _usual_directory(arguments: Arguments, form: str) -> str:
    if arguments.weights is not None:
        return f"exports/{Path(arguments.weights).name}/{form}"
    return f"{arguments.workdir}/export/{form}"


VERB = Verb(
    "writes a network as StableHLO, as ONNX or for PyTorch, with its card",
    main,
    define_flags,
    several_processes=False,
)
