"""The fields of `config.init`: weights of others that a run starts from."""

from resnet_jax.fields import Field, Needs

_WEIGHTS = (Needs("weights"),)

FIELDS = {
    "weights": Field(None, "a run's directory, a file of weights, or a repository's name", str),
    "head": Field(
        "auto",
        "the classifier: keep it, a fresh one, or auto: kept where the classes are the same",
        choices=("auto", "keep", "fresh"),
        needs=_WEIGHTS,
    ),
    "prefix": Field("", "of a file's keys to take, as load_torch has it", needs=_WEIGHTS),
    "digest": Field(
        None, "SHA-256 that the weights must have; filled when the run begins", str, needs=_WEIGHTS
    ),
}
