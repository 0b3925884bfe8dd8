"""Scoring a split: every example exactly once."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from resnet_jax.distributed.requests import Requests
from resnet_jax.training.answers import Answers
from resnet_jax.training.metrics import MetricSums


class Batches(Protocol):
    """A stretch of batches, made ahead and placed on the devices."""

    wait: float
    """Seconds that the consumer has waited for batches so far."""

    def __enter__(self) -> "Batches": ...

    def __exit__(self, *_) -> None: ...

    def __iter__(self) -> Iterator[tuple[int, dict[str, jax.Array]]]: ...


def evaluate(
    eval_step: Callable,
    variables: dict[str, Any],
    batches: Batches,
    requests: Requests,
    tick: Callable[[int], None] = lambda examples: None,
    answers: Answers | None = None,
) -> tuple[MetricSums | None, int]:
    """Scores all of a loader's examples.

    Args:
      eval_step: (variables, batch) -> `step.EvalMetrics`, or `step.Scores` for `answers`.
      variables: the network's parameters and statistics.
      batches: the split's, with padding masked.
      requests: a request to stop ends the evaluation.
      tick: called with the number of examples of each batch that is done.
      answers: gets the answer to each example.

    Returns:
      The sums over the split and 0; or, when it was stopped, None and the exit status asked for.
    """
    scored = MetricSums()

    def settle(metrics, asked) -> int:
        sums = jax.device_get(metrics.sums)
        scored.add(sums)
        if answers is not None:
            answers.add(jax.device_get(metrics))
        tick(int(sums["examples"]))
        return requests.answer(asked).stop

    # A batch's metrics are read when the next one has been started, so that devices never wait.
    before = None
    with batches:
        for _, batch in batches:
            started = eval_step(variables, batch), requests.ask()
            if before is not None and (stop := settle(*before)):
                return None, stop
            before = started
        assert before is not None  # A split has an image.
        stop = settle(*before)
    return (None, stop) if stop else (scored, 0)
