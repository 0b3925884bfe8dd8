"""`config.data` with its defaults, for tests."""

import ml_collections

from resnet_jax import data


def settings(**changes) -> ml_collections.ConfigDict:
    """Returns the defaults of `config.data` with `changes`."""
    values = {name: field.default for name, field in data.FIELDS.items()}
    return ml_collections.ConfigDict({**values, **changes})
