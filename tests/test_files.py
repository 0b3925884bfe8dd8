"""Text files that are whole or not there at all."""

import os
import pathlib

import pytest
from etils import epath

from resnet_jax.files import write_atomically


@pytest.mark.parametrize("kind", [str, pathlib.Path, epath.Path])
def test_a_file_is_replaced_whole(tmp_path, kind):
    path = tmp_path / "notes.json"
    write_atomically(kind(path), "first\n")
    write_atomically(kind(path), "Grüße\n")
    assert path.read_bytes() == "Grüße\n".encode()
    assert os.listdir(tmp_path) == ["notes.json"]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "notes.json"
    write_atomically(path, "first\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "second \ud800\n")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "third\n")
    assert path.read_text() == "first\n"
    assert os.listdir(tmp_path) == ["notes.json"]


def test_the_text_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "x", "text")
    assert order == ["fsync", "replace"]
