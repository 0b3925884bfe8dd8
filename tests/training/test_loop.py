"""The loop by itself: a signal in the middle of a step, what it counts and times."""

import itertools
import os
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.distributed.mesh import make_mesh
from resnet_jax.distributed.requests import Answer, Requests
from resnet_jax.distributed.signals import Interrupted, Signals
from resnet_jax.training.checkpointing.checkpoints import Checkpoints
from resnet_jax.training.loop import EvaluatingSide, Loop, TrainingSide
from resnet_jax.training.plan import Plan
from resnet_jax.training.progress import Progress
from resnet_jax.training.reporting.display import Display
from resnet_jax.training.reporting.goodput import Goodput
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.outlook import Outlook
from resnet_jax.training.reporting.reporter import Reporter
from resnet_jax.training.reporting.step_timer import StepTimer
from resnet_jax.training.reporting.trace import Trace
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Metrics


class Batches:
    wait = 0.0

    def __init__(self, start, stop):
        self._numbers = range(start, stop)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return iter((number, {}) for number in self._numbers)


class SlowSteps:
    """A step that the device works on for `seconds` after the call has returned."""

    def __init__(self, seconds):
        self._began = threading.Condition()
        self.begun = 0

        def work(number):
            with self._began:
                self.begun = int(number) + 1
                self._began.notify_all()
            time.sleep(seconds)
            return np.float32(1)

        def step(state, batch):
            shape = jax.ShapeDtypeStruct((), np.float32)
            loss = jax.pure_callback(work, shape, state.step)
            sums = {"loss": loss, "top1": 0, "top5": 0, "examples": 4}
            return state.replace(step=state.step + 1), Metrics(sums, loss, loss > 0)

        self.step = jax.jit(step)

    def wait_for(self, number):
        with self._began:
            return self._began.wait_for(lambda: self.begun >= number, timeout=60)


@pytest.fixture
def loop_over(tmp_path):
    def build(step, signals):
        plan = Plan(
            batch_size=4,
            steps_per_epoch=100,
            total_steps=100,
            eval_every_epochs=1,
            save_every_epochs=1,
            log_every_steps=100,
        )
        logbook, trace, outlook = Logbook(tmp_path), Trace(tmp_path), Outlook(1, "nothing")
        reporter = Reporter(plan, Display(), logbook, Goodput(), trace, lambda *_: None, outlook)
        return Loop(
            plan,
            TrainingSide(lambda number: step, Batches),
            EvaluatingSide(None, None, "test", None),
            Checkpoints(tmp_path / "checkpoints"),
            reporter,
            Requests(signals, make_mesh(jax.devices()[:1])),
        )

    return build


def test_a_signal_in_a_slow_step_is_told_at_once_and_stops_at_its_end(loop_over, tmp_path, capfd):
    steps, told = SlowSteps(1.5), []

    def interrupt():
        # Without its handler the signal would end all tests.
        if not steps.wait_for(2):
            return
        os.kill(os.getpid(), signal.SIGTERM)
        said = ""
        while "SIGTERM" not in said and steps.begun == 2:
            time.sleep(0.05)
            said += capfd.readouterr().out
        told.append((said, steps.begun))

    state = TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {}, {}, None, jnp.zeros(2, jnp.uint32))
    thread = threading.Thread(target=interrupt)
    with Signals() as signals:
        thread.start()
        with pytest.raises(Interrupted) as stopped:
            loop_over(steps.step, signals).run(state, Progress())
    thread.join()
    ((line, begun),) = told
    assert "SIGTERM: saving, then stopping" in line
    assert begun == 2
    assert stopped.value.status == 143
    assert Checkpoints(tmp_path / "checkpoints").steps() == [2]


def test_a_process_alone_answers_with_what_it_wants_by_now():
    signals = Signals()
    requests = Requests(signals, make_mesh(), every_minutes=None)
    asked = requests.ask(step_is_slow=True)
    assert requests.answer(asked) == Answer(step_is_slow=True)
    signals.stop = 143
    assert requests.answer(asked) == Answer(stop=143, step_is_slow=True)
    assert requests.answer(None) == Answer(stop=143)


def test_no_two_steps_have_the_same_number_of_epochs():
    plan = Plan(4, 60_000, 120_000, 1, 1, 1)
    assert len({plan.epoch(step) for step in (59_999, 60_000, 60_001)}) == 3
    assert plan.epoch(60_000) == 1


def test_a_speed_of_an_image_an_hour_is_no_zero(monkeypatch):
    monkeypatch.setattr("time.monotonic", itertools.count(0, 3600).__next__)
    timer = StepTimer()
    timer.start(Batches(0, 1))
    timer.step(1)
    assert timer.record()["images_per_sec"] > 0
