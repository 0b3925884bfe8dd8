"""Checkpoints: exact, with checksums, never replaced by less; on tiny states, in one process."""

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from resnet_jax.distributed.mesh import make_mesh, replicated
from resnet_jax.errors import UserError
from resnet_jax.training.checkpointing import checksums
from resnet_jax.training.checkpointing.checkpoints import Checkpoints, Notes


def state(value=0.0, size=5):
    sharding = replicated(make_mesh())
    tree = {
        "params": {"kernel": jnp.full((size, 3), value, jnp.float32), "bias": jnp.arange(3.0)},
        "batch_stats": {},
        "step": jnp.int32(value),
    }
    return jax.device_put(tree, sharding)


def notes(step, top1=None):
    scores = {} if top1 is None else {"top1": top1, "top5": 1.0, "loss": 1 - top1}
    return Notes(step, scores, {"best": None})


def assert_same(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


LocalPath = type(epath.Path("."))


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    opened = Checkpoints(tmp_path / "checkpoints", say=said.append)
    yield opened
    opened.close()


def largest_file(directory):
    return max(
        (path for path in Path(directory).rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )


def test_a_checkpoint_is_the_state_at_saving_time_though_the_next_steps_overwrite_it(
    checkpoints, monkeypatch
):
    """The commit is held back until the donated buffers have been written over many times."""
    sharding = replicated(make_mesh())
    go_on, write = threading.Event(), checksums.write_checksums
    monkeypatch.setattr(
        checksums,
        "write_checksums",
        lambda directory, **keywords: (go_on.wait(20), write(directory, **keywords)),
    )

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=sharding)
    def step(tree):
        return jax.tree.map(lambda x: x + 1, tree)

    now = step(state(1.0, size=4096))
    expected = jax.tree.map(lambda x: np.array(x, copy=True), now)
    before = now
    checkpoints.save(now, notes(2))
    for _ in range(20):
        now = step(now)
    assert before["params"]["kernel"].is_deleted()
    assert checkpoints.steps() == []
    go_on.set()
    assert checkpoints.wait()
    assert_same(checkpoints.restore(2, now), expected)


def test_a_state_saved_on_eight_devices_is_restored_on_two_and_on_one(checkpoints):
    saved = state(3.0)
    checkpoints.save(saved, notes(3))
    checkpoints.wait()
    for count in (2, 1):
        sharding = replicated(make_mesh(jax.devices()[:count]))
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved
        )
        restored = checkpoints.restore(3, like)
        assert_same(restored, saved)
        assert restored["params"]["kernel"].sharding == sharding


def test_the_latest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, top1 in enumerate([0.2, 0.9, 0.8, 0.5, 0.6, 0.7]):
        checkpoints.save(state(step), notes(step, top1))
    checkpoints.close()
    assert checkpoints.steps() == [1, 4, 5]
    assert checkpoints.best_step() == 1


@pytest.mark.parametrize(
    ("metric", "losses", "best"),
    [("top1", (0.5, 0.05, 0.07), 2), ("top1", (0.5, 0.5, 0.7), 2), ("loss", (0.3, 0.3, 0.3), 3)],
)
def test_of_equals_the_best_has_the_lower_loss_then_the_later_step(tmp_path, metric, losses, best):
    checkpoints = Checkpoints(tmp_path, keep=3, best_metric=metric)
    reported = {}
    for step, loss in enumerate(losses, 1):
        scores = {"top1": 1.0, "top5": 1.0, "loss": loss}
        if checkpoints.is_better(scores, reported.get("scores")):
            reported = {"step": step, "scores": scores}
        checkpoints.save(state(step), Notes(step, scores, {}))
    checkpoints.close()
    assert checkpoints.best_step() == reported["step"] == best


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "checksums", "notes"])
def test_damage_is_noticed_and_the_one_before_is_used(checkpoints, said, harm):
    for step in (1, 2):
        checkpoints.save(state(step), notes(step, 0.5))
    checkpoints.wait()
    newest = checkpoints.directory / "2"
    victims = {"checksums": newest / checksums.FILE, "notes": newest / "notes" / "metadata"}
    victim = Path(victims.get(harm, largest_file(newest / "state")))
    content = bytearray(victim.read_bytes())
    if harm == "remove":
        victim.unlink()
    elif harm == "truncate":
        victim.write_bytes(content[:-1])
    else:
        content[len(content) // 2] ^= 64
        victim.write_bytes(content)
    assert checkpoints.newest_intact() == 1
    assert len(said) == 1
    assert said[0].startswith("checkpoint 2 is damaged (")
    assert said[0].endswith("moved aside as 2.damaged")
    assert_same(checkpoints.restore(1, state()), state(1))
    checkpoints.save(state(2), notes(2))
    assert checkpoints.wait()
    assert checkpoints.newest_intact() == 2


def test_files_that_orbax_writes_after_the_checksums_are_not_needed_to_restore(checkpoints):
    checkpoints.save(state(1), notes(1))
    checkpoints.wait()
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        (checkpoints.directory / "1" / name).write_bytes(b"\xff{")
    assert checkpoints.newest_intact() == 1
    assert_same(checkpoints.restore(1, state()), state(1))


def test_saving_a_step_again_never_leaves_less_than_before(checkpoints, said, monkeypatch):
    checkpoints.save(state(7), notes(7))
    checkpoints.wait()

    def full_disk(directory, **keywords):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write_checksums", full_disk)
        checkpoints.save(state(8), notes(7, 0.5))
        assert not checkpoints.wait()
    assert "saving checkpoint 7" in said[0]
    assert "No space left on device" in said[0]
    assert checkpoints.newest_intact() == 7
    assert_same(checkpoints.restore(7, state()), state(7))
    checkpoints.save(state(8), notes(7, 0.5))
    assert checkpoints.wait()
    assert_same(checkpoints.restore(7, state()), state(8))
    assert [path.name for path in checkpoints.directory.iterdir()] == ["7"]


def test_a_process_killed_while_it_saves_a_step_again_leaves_the_old_one(checkpoints):
    checkpoints.save(state(7), notes(7))
    checkpoints.wait()
    (checkpoints.directory / "7").rename(checkpoints.directory / "7.replaced")
    (checkpoints.directory / "7.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.newest_intact() == 7
    assert_same(checkpoints.restore(7, state()), state(7))


def test_a_process_killed_before_it_removes_the_old_one_leaves_no_remains(checkpoints):
    checkpoints.save(state(7), notes(7))
    checkpoints.wait()
    shutil.copytree(checkpoints.directory / "7", checkpoints.directory / "7.replaced")
    assert checkpoints.newest_intact() == 7
    checkpoints.save(state(8), notes(7))
    assert checkpoints.wait()
    assert [path.name for path in checkpoints.directory.iterdir()] == ["7"]
    assert_same(checkpoints.restore(7, state()), state(8))


def test_a_damaged_successor_gives_way_to_what_it_replaced(checkpoints):
    for step in (5, 7):
        checkpoints.save(state(step), notes(step))
        checkpoints.wait()
    shutil.copytree(checkpoints.directory / "7", checkpoints.directory / "7.replaced")
    largest_file(checkpoints.directory / "7").write_bytes(b"damage")
    assert checkpoints.newest_intact() == 7
    assert_same(checkpoints.restore(7, state()), state(7))


def test_a_failed_save_is_said_by_the_next_poll_and_the_next_save_is_made(
    checkpoints, said, monkeypatch
):
    checkpoints.save(state(1), notes(1))
    checkpoints.wait()
    failed = threading.Event()

    def refused(directory, **keywords):
        failed.set()
        raise PermissionError(13, os.strerror(13), str(directory))

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "write_checksums", refused)
        checkpoints.save(state(2), notes(2))
        assert failed.wait(20)
        for _ in range(200):
            checkpoints.poll()
            if said:
                break
            threading.Event().wait(0.05)
    assert "saving checkpoint 2" in said[0]
    assert "Permission denied" in said[0]
    assert checkpoints.steps() == [1]
    checkpoints.save(state(3), notes(3))
    assert checkpoints.wait()
    assert checkpoints.steps() == [1, 3]
    assert len(said) == 1


def test_a_place_that_cannot_be_written_to_is_said_and_training_could_go_on(tmp_path, said):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints", say=said.append)
    checkpoints.save(state(1), notes(1))
    assert not checkpoints.wait()
    assert "Not a directory" in said[0]
    checkpoints.close()


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False
        ).returncode
    ):
        pytest.skip("cannot mount a small tmpfs here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_costs_that_save_and_nothing_else(small_disk, said):
    checkpoints = Checkpoints(small_disk / "checkpoints", say=said.append)
    checkpoints.save(state(1), notes(1))
    assert checkpoints.wait()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(700_000))
    noise = jax.device_put(jax.random.normal(jax.random.key(0), (200_000,)), jax.devices()[0])
    checkpoints.save({"params": noise, "batch_stats": {}}, notes(2))
    assert not checkpoints.wait()
    assert "failed (" in said[0]
    assert checkpoints.steps() == [1]
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == ["1"]
    filler.unlink()
    checkpoints.save(state(3), notes(3))
    assert checkpoints.wait()
    assert checkpoints.newest_intact() == 3
    checkpoints.close()


def test_another_architecture_is_named_array_by_array(checkpoints):
    checkpoints.save(state(1), notes(1))
    checkpoints.wait()
    other = state(1, size=6)
    other["params"]["extra"] = other["params"].pop("bias")
    with pytest.raises(UserError) as caught:
        checkpoints.restore(1, other)
    message = str(caught.value)
    assert "params/kernel is float32[5, 3], expected float32[6, 3]" in message
    assert "params/extra is absent, expected float32[3]" in message
    assert "params/bias is float32[3], expected none" in message


def test_the_checksums_name_every_file_with_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    checksums.write_checksums(tmp_path)
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json.loads((tmp_path / checksums.FILE).read_text()) == {"a": digest}
    assert checksums.find_damage(tmp_path) is None


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, best_metric="loss")
    assert not checkpoints.is_better({"loss": float("nan")}, None)
    assert checkpoints.is_better({"loss": 1.0}, {"loss": float("nan")})
    assert not checkpoints.is_better({"loss": 1.0}, {"loss": 0.5})


def refuse(monkeypatch, end, error):
    """Makes paths with this end fail as they do on a disk that is out of order."""

    def failing(method):
        def call(path, *arguments, **keywords):
            if str(path).endswith(end):
                raise OSError(error, os.strerror(error), str(path))
            return method(path, *arguments, **keywords)

        return call

    for method in ("open", "read_text", "iterdir"):
        monkeypatch.setattr(LocalPath, method, failing(getattr(LocalPath, method)))


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE], ids=os.strerror)
@pytest.mark.parametrize("name", ["digest.json", "metadata", "checkpoints"])
def test_what_cannot_be_read_is_not_taken_for_damage_or_absence(
    checkpoints, said, monkeypatch, name, error
):
    for step in (1, 2):
        checkpoints.save(state(step), notes(step, 0.5))
    checkpoints.wait()
    with monkeypatch.context() as patch:
        refuse(patch, name, error)
        with pytest.raises(UserError) as caught:
            checkpoints.newest_intact()
    message = str(caught.value)
    assert f"{name} cannot be read ({os.strerror(error)})" in message
    assert "nothing was moved or removed" in message
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["1", "2"]
    assert said == []
    assert checkpoints.newest_intact() == 2


def test_a_directory_without_permission_is_not_taken_for_damage(tmp_path):
    """The real thing, in a process that has given up root's right to read everything."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(state(step), notes(step, 0.5))
    checkpoints.close()
    locked = tmp_path / "checkpoints" / "2" / "notes"
    locked.chmod(0)
    program = (
        "import sys; from resnet_jax.training.checkpointing.checkpoints import Checkpoints;"
        "Checkpoints(sys.argv[1]).newest_intact()"
    )
    ordinary = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, and there is no setpriv")
        rights = "-dac_override,-dac_read_search"
        ordinary = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    try:
        ended = subprocess.run(
            [*ordinary, sys.executable, "-c", program, str(tmp_path / "checkpoints")],
            check=False,
            capture_output=True,
            text=True,
        )
    finally:
        locked.chmod(0o755)
    assert "UserError" in ended.stderr
    assert "metadata cannot be read (Permission denied)" in ended.stderr
    assert checkpoints.steps() == [1, 2]


def test_scores_that_cannot_be_read_now_cost_no_checkpoint(tmp_path, said, monkeypatch):
    """The best stays though another may be removed: which one is the best is not known."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, say=said.append)
    for step, top1 in enumerate([0.9, 0.5, 0.6], 1):
        checkpoints.save(state(step), notes(step, top1))
        checkpoints.wait()
    with monkeypatch.context() as patch:
        refuse(patch, "1/notes/metadata", errno.EIO)
        with pytest.raises(UserError, match="Input/output error"):
            checkpoints.best_step()
        checkpoints.save(state(4), notes(4, 0.7))
        assert checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3, 4]
    assert "cannot be removed (Input/output error)" in said[0]
    checkpoints.save(state(5), notes(5, 0.7))
    checkpoints.close()
    assert checkpoints.steps() == [1, 4, 5]


def test_saves_that_fail_and_are_noticed_early_cost_no_old_checkpoint(tmp_path, said, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, say=said.append)
    for step in (1, 2):
        checkpoints.save(state(step), notes(step))

    def refused(directory, **keywords):
        raise PermissionError(13, os.strerror(13), str(directory))

    checkpoints.wait()
    monkeypatch.setattr(checksums, "write_checksums", refused)
    for step in (3, 4, 5):
        said.clear()
        checkpoints.save(state(step), notes(step))
        while not said:
            checkpoints.poll()
        assert checkpoints.steps() == [1, 2]


def test_a_save_arrives_though_the_old_one_cannot_be_removed(tmp_path, said, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, say=said.append)
    for step in (1, 2):
        checkpoints.save(state(step), notes(step))
        checkpoints.wait()
    rename = LocalPath.rename

    def refuse_oldest(path, target):
        if path.name == "1":
            raise PermissionError(13, os.strerror(13), str(path))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(LocalPath, "rename", refuse_oldest)
        checkpoints.save(state(3), notes(3))
        assert checkpoints.wait()
    assert "cannot be removed (Permission denied)" in said[0]
    assert checkpoints.newest_intact() == 3
    checkpoints.close()


def test_names_that_are_no_step_are_left_alone(checkpoints):
    checkpoints.save(state(1), notes(1))
    checkpoints.wait()
    for name in ("²", "007", "1.damaged", "notes"):
        (checkpoints.directory / name).mkdir()
    assert checkpoints.steps() == [1]
    assert checkpoints.newest_intact() == 1
