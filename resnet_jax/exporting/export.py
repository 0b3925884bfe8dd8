"""Networks as files that run without this package, each compared with the network it is of."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from resnet_jax.errors import UserError, writing
from resnet_jax.exporting.formats import FORMATS
from resnet_jax.exporting.model_card import make_card
from resnet_jax.exporting.network import Answer, Network, Settings
from resnet_jax.models.interop import stablehlo
from resnet_jax.models.interop.fold import Folded, fold

BATCHES = (32, 7, 1)
_LEAST = 1e-30  # probabilities below it have lost digits
_FOLDED_TOLERANCE = 1e-4


def export(network: Network, settings: Settings, output_dir: str | os.PathLike) -> None:
    """Writes a network in a format, with its card and class names, and says how exact it is.

    What was written is run on random pixels, in batches of 1, 7 and 32, beside the network, before
    any file gets its name.

    Args:
      network: to write.
      settings: how.
      output_dir: where the files go; those of an earlier export are replaced.

    Raises:
      UserError: a package is missing, the format has no such network, the network gives no numbers,
        or the directory cannot be written to.
    """
    check, write, tolerance = FORMATS[settings.form]
    check(network)
    to_write, notes = network, []
    if settings.fold:
        folded = fold(network.model, network.variables)
        to_write = network._replace(model=folded.model, variables=folded.variables)
        tolerance = max(tolerance, _FOLDED_TOLERANCE)
        notes.append(_describe_fold(network, folded))
        print(notes[0])
    output_dir = Path(output_dir)
    with _staged(output_dir) as stage:
        written = write(stage, to_write, settings)
        # onnxruntime computes on the CPU, and other devices round otherwise.
        with jax.default_device(jax.devices("cpu")[0] if settings.form == "onnx" else None):
            difference = _difference(network, written.answer, written.takes_images)
        agreement = _describe_agreement(difference, tolerance)
        print(f"{settings.form}: {agreement}")
        card = make_card(
            *network,
            library=written.library,
            code=written.code,
            notes=[*written.notes, *notes, agreement],
        )
        (stage / "README.md").write_text(card)
        names = network.description.classes
        (stage / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    sizes = {file.name: file.stat().st_size for file in output_dir.iterdir() if file.is_file()}
    listed = ", ".join(f"{name} ({size:,} bytes)" for name, size in sorted(sizes.items()))
    print(f"{output_dir}: {listed}")


def _describe_fold(network: Network, folded: Folded) -> str:
    apply = jax.jit(folded.model.apply)
    difference = _difference(network, lambda images: apply(folded.variables, images), True)
    total = folded.count + len(folded.kept)
    line = (
        f"folded {folded.count} of {total} BatchNorm layers into the convolutions before them,"
        f" which makes a difference of {difference:.1e} of the largest logit"
    )
    return line + (f"; {len(folded.kept)} follow a sum and stay" if folded.kept else "")


def _difference(network: Network, answer: Answer, takes_images: bool) -> float:
    """Returns the largest difference from a network, relative to its largest logit.

    Args:
      network: the network.
      answer: what is compared with it.
      takes_images: whether that takes normalised images and gives logits, not pixels and
        probabilities, whose logarithms are compared.

    Raises:
      UserError: the network gives no numbers.
    """
    model, variables, about = network
    shape = (max(BATCHES), about.eval_size, about.eval_size, len(about.mean))
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    moments = (np.asarray(moment, np.float32) for moment in (about.mean, about.std))
    images = stablehlo.normalise(pixels, *moments)
    logits = np.asarray(jax.jit(model.apply)(variables, images))
    if not np.isfinite(logits).all():
        raise UserError(
            f"{about.source}: the network's answers are not finite (NaN): its training went astray;"
            " choose another checkpoint by --which"
        )
    given, expected = (images, logits) if takes_images else (pixels, logits)
    compares_logarithms = model.num_classes and not takes_images
    if compares_logarithms:
        expected = np.maximum(jax.nn.log_softmax(logits), np.log(_LEAST))
    worst = 0.0
    for batch in BATCHES:
        found = np.asarray(answer(given[:batch]))
        if compares_logarithms:
            found = np.log(np.maximum(found, _LEAST))
        worst = np.maximum(worst, np.abs(found - expected[:batch]).max())  # NaN stays NaN
    return float(worst / (np.abs(logits).max() or 1.0))


def _describe_agreement(difference: float, tolerance: float) -> str:
    line = (
        f"largest difference from the network {difference:.1e} of its largest logit (float32,"
        f" batches of {', '.join(map(str, sorted(BATCHES)))})"
    )
    if not difference <= tolerance:
        # A fault of this package, so no `UserError`.
        raise RuntimeError(f"the export is wrong: {line}, more than {tolerance:g}; nothing is kept")
    return line


@contextlib.contextmanager
def _staged(final: Path) -> Iterator[Path]:
    """Yields a directory whose files go to `final` when all are there; a new `final` is complete or
    absent.
    """
    final = Path(os.path.realpath(final))
    # Inside it where it is there: that may be a disk of its own.
    place = final if final.exists() else final.parent
    stage = place / f".{final.name}.partial"
    try:
        with writing(f"--output_dir={final}"):
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
            yield stage
            for file in stage.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            if place != final:
                stage.rename(final)
                return
            for file in stage.iterdir():
                file.replace(final / file.name)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
