"""A step that does not fit is answered with a setting that does."""

import re

import jax
import pytest
from running import tiny_recipe

from resnet_jax.commands.train import train
from resnet_jax.errors import UserError
from resnet_jax.training import memory


def test_the_error_names_accumulate_steps_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_TRIALS", 1)
    needs, needed = [], memory.needed_gib
    monkeypatch.setattr(
        memory, "needed_gib", lambda compiled: needs.append(needed(compiled)) or needs[-1]
    )
    # With no room at all every trial is made, and tells its need.
    monkeypatch.setattr(memory, "device_gib", lambda: 0.0)
    with pytest.raises(UserError, match=r"nor does any config\.accumulate_steps"):
        train(tiny_recipe(num_epochs=1), str(tmp_path))
    whole, *less = needs
    assert min(less) < whole
    monkeypatch.setattr(memory, "device_gib", lambda: max(less) * 1.01)
    with pytest.raises(UserError) as caught:
        train(tiny_recipe(num_epochs=1), str(tmp_path))
    proposed = int(re.search(r"accumulate_steps = (\d+), which fits", str(caught.value))[1])
    assert 64 // jax.device_count() % proposed == 0
    assert not (tmp_path / "checkpoints").exists()


def test_running_out_while_it_trains_is_the_same_error(tmp_path, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr("resnet_jax.training.loop.Loop.run", exhausted)
    with pytest.raises(
        UserError, match=r"set config\.accumulate_steps = 2, which fits, or a smaller batch"
    ):
        train(tiny_recipe(num_epochs=1), str(tmp_path))


def test_an_evaluation_that_runs_out_is_told_from_a_step(tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr("resnet_jax.training.loop.evaluate", exhausted)
    with pytest.raises(UserError, match=r"config\.eval_batch_size = 320: an evaluation step"):
        train(tiny_recipe(num_epochs=0.5, eval_batch_size=320), str(tmp_path / "runs_out"))
    needed = memory.needed_gib
    monkeypatch.setattr(memory, "device_gib", lambda: 1.0)
    sizes = iter([0.5, 2.0])  # of the training step and of the evaluation
    monkeypatch.setattr(memory, "needed_gib", lambda compiled: needed(compiled) + next(sizes))
    with pytest.raises(UserError, match=r"config\.eval_batch_size = 320: an evaluation step"):
        train(tiny_recipe(num_epochs=0.5, eval_batch_size=320), str(tmp_path / "too_large"))


def test_what_fits_is_tried_with_the_step_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_TRIALS", 1)
    monkeypatch.setattr(memory, "device_gib", lambda: 0.0)
    found, needed = {}, memory.needed_gib
    for freeze in ((), ("all but fc",)):
        needs = found[freeze] = []
        monkeypatch.setattr(
            memory, "needed_gib", lambda compiled, to=needs: to.append(needed(compiled)) or to[-1]
        )
        with pytest.raises(UserError, match="does not fit"):
            train(tiny_recipe(num_epochs=1, optimizer__freeze=freeze), str(tmp_path))
    whole, frozen = found.values()
    assert all(less < more for less, more in zip(frozen, whole, strict=True))


def test_other_errors_of_the_runtime_stay_what_they_are():
    assert not memory.is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: a fault"))
    assert not memory.is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
