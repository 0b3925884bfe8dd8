"""Scoring a split: every example exactly once."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from resnet_jax.distributed.requests import Requests
from resnet_jax.training.metrics import MetricSums


class Feed(Protocol):
    """A stretch of batches, made ahead and placed on the devices."""

    wait: float
    """Seconds that the consumer has waited for batches so far."""

    def __enter__(self) -> "Feed": ...

    def __exit__(self, *_) -> None: ...

    def __iter__(self) -> Iterator[tuple[int, dict[str, jax.Array]]]: ...


def evaluate(
    eval_step: Callable,
    variables: dict[str, Any],
    feed: Feed,
    requests: Requests,
    tick: Callable[[int], None] = lambda examples: None,
) -> tuple[MetricSums | None, int]:
    """Scores all of a loader's examples.

    Args:
      eval_step: from `make_eval_step`.
      variables: the network's parameters and statistics.
      feed: the split's batches on the devices, padding masked.
      requests: a wish to stop ends the evaluation.
      tick: called with the number of examples of each batch that is done.

    Returns:
      The sums over the split and 0; or, when it was stopped, None and the exit status asked for.
    """
    means = MetricSums()

    def settle(metrics) -> int:
        metrics = jax.device_get(metrics)
        means.add(metrics.sums)
        tick(int(metrics.sums["examples"]))
        return requests.agreed(metrics.requests)[0]

    before = None
    with feed:
        for _, batch in feed:
            metrics = eval_step(variables, batch, requests.array())
            if before is not None and (stop := settle(before)):
                return None, stop
            before = metrics
    stop = settle(before)
    return (None, stop) if stop else (means, 0)
