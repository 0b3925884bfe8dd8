"""The small files of a run: damaged, foreign or of an older version, and the data they tell of."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import fabricate
import pytest
from etils import epath

from resnet_jax import config as config_lib
from resnet_jax import data, run, run_files
from resnet_jax.errors import UserError


@pytest.fixture
def said():
    return []


@pytest.fixture
def sources():
    config = config_lib.defaults()
    config.data.name = "digits"
    return [data.open_source(config.data, train=train) for train in (True, False)]


@pytest.fixture
def workdir(tmp_path, sources):
    run.describe(tmp_path, config_lib.defaults(), *sources)
    return tmp_path


def describe(workdir, sources, said):
    run.describe(workdir, config_lib.defaults(), *sources, say=said.append)


def starts(workdir):
    return json.loads((workdir / "environment.json").read_text())


def test_a_second_start_adds_its_entry_and_finds_the_same_data(workdir, sources, said):
    assert run.check_data(workdir, *sources) == []
    describe(workdir, sources, said)
    assert len(starts(workdir)) == 2
    assert said == []


@pytest.mark.parametrize("content", ["", "[{", "null", '{"a": 1}', "[5]", "\0\0\0\0"])
def test_an_environment_that_is_cut_short_or_foreign_is_set_aside_and_begun_again(
    workdir, sources, said, content
):
    (workdir / "environment.json").write_text(content)
    assert run.check_data(workdir, *sources) == []
    describe(workdir, sources, said)
    assert "environment.json is damaged: moved aside as environment.json.damaged" in said[0]
    assert len(starts(workdir)) == 1
    assert (workdir / "environment.json.damaged").read_text() == content


@pytest.mark.parametrize("content", ["", "[]", '{"training": 5}', '{"training":'])
def test_a_record_of_the_data_that_is_damaged_is_set_aside_and_made_again(
    workdir, sources, said, content
):
    (workdir / "data.json").write_text(content)
    assert run.check_data(workdir, *sources) == []
    describe(workdir, sources, said)
    assert "data.json is damaged" in said[0]
    assert run.data_changes(workdir, "training", sources[0]) == []
    assert json.loads((workdir / "data.json").read_text()).keys() == {"training", "evaluation"}


def test_a_run_from_before_the_record_of_its_data_makes_it_now_and_says_so(workdir, sources, said):
    (workdir / "data.json").unlink()
    assert run.check_data(workdir, *sources) == []
    describe(workdir, sources, said)
    assert "was not noted: those of now are" in said[0]
    assert (workdir / "data.json").exists()


@pytest.mark.parametrize("content", ["", "0\n1\n2", "0\n1\n2\n", "0\n1\n\0\0"])
def test_classes_that_are_cut_short_are_written_again_from_the_data(workdir, sources, content):
    (workdir / "classes.txt").write_text(content)
    assert run.check_data(workdir, *sources) == []
    describe(workdir, sources, [])
    assert run.read_classes(workdir) == tuple("0123456789")


def test_a_class_may_have_any_name_that_is_text(workdir):
    (workdir / "classes.txt").write_text("caf\ufffd\nb\n")
    assert run.read_classes(workdir) == ("caf\ufffd", "b")


@pytest.mark.parametrize("content", [None, b"", b"0\n1\n2", b"\xff\n", b"0\n\0\0\n"])
def test_classes_that_cannot_be_known_are_an_error_in_a_line(workdir, content):
    (workdir / "classes.txt").unlink()
    if content is not None:
        (workdir / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"classes\.txt is missing or damaged: restore it"):
        run.read_classes(workdir)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"seed": "many"}', b'{"data": 5}', b'{"batch_size": -1}']
    + [b'{"seed": NaN}', b'{"model": {"nmae": "resnet18"}}', b"[" * 9999],
)
def test_a_recipe_on_disk_that_is_damaged_or_foreign_is_an_error_in_a_line(workdir, content):
    (workdir / "config.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        run.read_config(workdir)
    assert str(workdir / "config.json") in str(error.value)
    assert "restore it from a copy" in str(error.value)
    assert "\n" not in str(error.value)


def read_and_write(workdir, sources):
    run.read_config(workdir)
    run.read_classes(workdir)
    run.check_data(workdir, *sources)
    run.describe(workdir, config_lib.defaults(), *sources)


@pytest.mark.parametrize("name", ["config.json", "classes.txt", "environment.json", "data.json"])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE], ids=os.strerror)
def test_a_file_that_cannot_be_read_is_neither_absent_nor_damaged(
    workdir, sources, monkeypatch, name, error
):
    local = type(epath.Path("."))
    read_bytes = local.read_bytes

    def fail(path):
        if path.name == name:
            raise OSError(error, os.strerror(error), str(path))
        return read_bytes(path)

    monkeypatch.setattr(local, "read_bytes", fail)
    before = {path.name: Path(path).read_bytes() for path in workdir.iterdir()}
    with pytest.raises(UserError, match=rf"{name} cannot be read \({os.strerror(error)}\)"):
        read_and_write(workdir, sources)
    assert {path.name: Path(path).read_bytes() for path in workdir.iterdir()} == before


def folder(directory):
    """Makes a folder of two classes of 8 images; returns the recipe that holds out half."""
    for label in "ab":
        (directory / label).mkdir(parents=True)
        for number in range(8):
            content = fabricate.jpeg(seed=ord(label) + number, height=8, width=8)
            (directory / label / f"{number}.jpg").write_bytes(content)
    config = config_lib.defaults()
    config.data.name, config.data.dir, config.data.eval_fraction = "folder", str(directory), 0.5
    config.data.image_size = 8
    return config


def open_both(config):
    return [data.open_source(config.data, train=train) for train in (True, False)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: (d / "a" / "0.jpg").rename(d / "a" / "z.jpg"),
            ("added", "gone", "0.jpg", "z.jpg"),
        ),
        (lambda d: (d / "a" / "new.jpg").write_bytes((d / "a" / "0.jpg").read_bytes()), ("added",)),
        (lambda d: [(d / "b" / f"{i}.jpg").unlink() for i in range(4)], ("gone",)),
        (lambda d: (d / "a" / "0.jpg").rename(d / "b" / "zz.jpg"), ("added", "gone")),
    ],
    ids=["renamed", "added", "gone", "relabelled"],
)
def test_images_that_have_changed_are_refused_with_what_and_accepted_by_a_flag(
    tmp_path, change, words
):
    config = folder(tmp_path / "data")
    run.describe(tmp_path / "run", config, *open_both(config))
    change(tmp_path / "data")
    sources = open_both(config)
    with pytest.raises(UserError) as error:
        run.check_data(tmp_path / "run", *sources)
    message = str(error.value)
    assert "have changed since the run began" in message
    assert "--accept_data_change" in message
    assert all(word in message for word in words)
    accepted = run.check_data(tmp_path / "run", *sources, accept_change=True)
    assert accepted
    run.describe(tmp_path / "run", config, *sources, changes=accepted)
    assert run.check_data(tmp_path / "run", *sources) == []
    assert starts(tmp_path / "run")[-1]["changes"] == accepted


def test_other_classes_are_refused_though_changes_are_accepted(tmp_path):
    config = folder(tmp_path / "data")
    run.describe(tmp_path / "run", config, *open_both(config))
    (tmp_path / "data" / "b").rename(tmp_path / "data" / "c")
    with pytest.raises(UserError, match=r"trained on 2 classes \(a, b\), which are not .*\(a, c\)"):
        run.check_data(tmp_path / "run", *open_both(config), accept_change=True)


def test_side_files_are_whole_or_not_there_when_the_disk_is_full(workdir, sources, monkeypatch):
    before = {path.name: path.read_bytes() for path in workdir.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written to"):
        run.describe(workdir, config_lib.defaults(), *sources)
    assert {path.name: path.read_bytes() for path in workdir.iterdir()} == before


def test_files_that_are_damaged_at_random_end_in_documented_errors():
    script = Path(__file__).with_name("fuzz_run_files.py")
    done = subprocess.run(
        [sys.executable, script, "--cases=500"],
        check=False,
        env=os.environ | {"PYTHONPATH": str(script.parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("config.json", "classes.txt", "environment.json", "data.json", "metrics.jsonl"):
        assert f"'{name}'" in done.stdout
    assert run_files.DATA in done.stdout
