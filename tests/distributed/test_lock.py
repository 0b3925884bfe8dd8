"""A directory has one owner: who is refused, who takes over, and when an owner must stop."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from resnet_jax.distributed import lock as module
from resnet_jax.distributed.lock import FILE, Lock, LockLost
from resnet_jax.distributed.owner import Owner
from resnet_jax.errors import UserError

HOLD = """
import sys, time
from resnet_jax.distributed.lock import Lock
lock = Lock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
if "stop" in sys.argv:
    lock.is_stopping = lambda: True
    print("stopping", flush=True)
    time.sleep(1)
lock.release()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.2)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)


def hold(directory, *arguments):
    """Returns a process that has the lock until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "held\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def record(directory):
    return json.loads((directory / FILE).read_text())


def write(directory, **changes):
    """Leaves the lock of a process that ended without a word, on this machine or another."""
    owner = Owner.this_process()
    fields = {name: getattr(owner, name) for name in Owner.__dataclass_fields__}
    (directory / FILE).write_text(json.dumps(fields | {"token": "other"} | changes))


def test_the_second_process_is_refused_with_the_first_ones_host_process_and_start(tmp_path):
    first = hold(tmp_path)
    try:
        with pytest.raises(UserError) as refused:
            Lock(tmp_path).acquire()
    finally:
        first.communicate("")
    message = str(refused.value)
    assert str(first.pid) in message
    assert os.uname().nodename in message
    assert re.search(r"since \d{4}-\d\d-\d\d", message)
    with Lock(tmp_path):
        assert record(tmp_path)["process"] == os.getpid()


def test_the_directory_is_made_and_nothing_stays_of_it_unless_something_was_written(tmp_path):
    directory = tmp_path / "new" / "run"
    with Lock(directory) as lock:
        lock.check()
        assert [path.name for path in directory.iterdir()] == [FILE]
        time.sleep(0.5)
        lock.check()
    assert not directory.exists()
    with Lock(directory):
        (directory / "result").write_text("")
    assert [path.name for path in directory.iterdir()] == ["result"]


@pytest.mark.parametrize("reaped", [True, False])
def test_an_owner_that_was_killed_is_replaced_at_once(tmp_path, monkeypatch, reaped):
    """Also before its parent has asked for its status, when its id is still there."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1000)
    owner = hold(tmp_path)
    kill(owner)
    if reaped:
        owner.communicate()
    lines = []
    with Lock(tmp_path, say=lines.append):
        assert record(tmp_path)["process"] == os.getpid()
    assert lines == []
    owner.communicate()


def test_an_owner_whose_process_id_another_process_has_now_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1000)
    write(tmp_path, began="1")
    Lock(tmp_path).acquire()
    assert record(tmp_path)["began"] != "1"


def test_an_owner_before_the_last_boot_is_not_taken_for_the_process_of_its_id(tmp_path):
    write(tmp_path, system="another boot", process=1)
    Lock(tmp_path).acquire()
    assert record(tmp_path)["process"] == os.getpid()


def test_an_owner_on_another_host_that_beats_is_refused_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1000)
    with Lock(tmp_path, host="first") as first:
        lines = []
        with pytest.raises(UserError, match=f"process {os.getpid()} on first since"):
            Lock(tmp_path, host="second", say=lines.append).acquire()
        assert "taken over after 1000 s" in lines[0]
        first.check()


def test_an_owner_on_another_host_without_a_beat_is_replaced_after_a_time_and_then_stops(
    tmp_path, monkeypatch
):
    """The first one hangs: its beats do not come. When it wakes it must not write any more."""
    first = Lock(tmp_path, host="first")
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "_beat", lambda self: None)
        first.acquire()
    first.check()
    began = time.monotonic()
    with Lock(tmp_path, host="second") as second:
        assert time.monotonic() - began >= module.PATIENCE_SECONDS
        with pytest.raises(LockLost, match=r"in use by process \d+ on second .* took it over"):
            first.check()
        first.release()
        second.check()
        first._released.clear()
        first._beat()  # what a thread does that was only delayed
        assert record(tmp_path)["host"] == "second"


def test_of_many_that_wait_for_a_dead_owner_one_takes_the_lock(tmp_path):
    write(tmp_path, system="elsewhere", host="first")
    taken, refused = [], []

    def try_it(number):
        lock = Lock(tmp_path, host=f"host{number}", say=lambda line: None)
        try:
            lock.acquire()
            taken.append(lock)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert len(refused) == 7
    taken[0].check()
    taken[0].release()


@pytest.mark.parametrize("host", [None, "another"])
def test_an_owner_that_is_stopping_is_waited_for(tmp_path, host):
    lines = []
    with hold(tmp_path, "stop") as first:
        first.stdin.close()
        assert first.stdout.readline() == "stopping\n"
        while not record(tmp_path)["is_stopping"]:
            time.sleep(0.01)
        with Lock(tmp_path, host=host, say=lines.append):
            assert first.wait() == 0
    assert "it is stopping, and this one waits for it" in lines[0]


def test_an_owner_killed_while_it_was_stopping_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1000)
    first = hold(tmp_path, "stop")
    threading.Timer(0.4, kill, (first,)).start()
    first.stdin.close()
    while not record(tmp_path)["is_stopping"]:
        time.sleep(0.01)
    with Lock(tmp_path):
        assert record(tmp_path)["process"] == os.getpid()


def test_an_owner_whose_lock_is_removed_by_hand_stops(tmp_path):
    with Lock(tmp_path) as lock:
        (tmp_path / FILE).unlink()
        with pytest.raises(LockLost, match=r"lock\.json is gone"):
            lock.check()
        time.sleep(0.5)
        assert not (tmp_path / FILE).exists()


def test_a_disk_that_fails_for_a_moment_does_not_end_the_owner(tmp_path, monkeypatch):
    with Lock(tmp_path) as lock:
        with monkeypatch.context() as patch:

            def fail(*_):
                raise OSError(5, "Input/output error")

            patch.setattr(Lock, "_read", fail)
            lock.check()
            time.sleep(0.3)
        beat = record(tmp_path)["beat"]
        time.sleep(0.5)
        assert record(tmp_path)["beat"] > beat
        lock.check()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00", b"{", b"[]", b"{}", b'"lock"', b"null", b'{"token": 5}', b"[" * 10_000],
    ids=range(9),
)
def test_a_lock_that_is_cut_short_or_foreign_is_replaced_after_a_time(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with Lock(tmp_path):
        assert record(tmp_path)["process"] == os.getpid()


@pytest.mark.parametrize("process", [0, -1, 2**70, "many", None])
def test_a_lock_with_a_process_that_cannot_be_is_replaced_after_a_time(tmp_path, process):
    write(tmp_path, process=process)
    with Lock(tmp_path):
        assert record(tmp_path)["process"] == os.getpid()


def test_a_directory_that_cannot_be_made_is_an_error_in_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        Lock(tmp_path / "file" / "run").acquire()


def test_a_file_system_without_hard_links_has_locks_too(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    with Lock(tmp_path), pytest.raises(UserError, match="in use"):
        Lock(tmp_path).acquire()
    assert list(tmp_path.iterdir()) == []


def test_import_takes_no_lock_and_writes_nothing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "import resnet_jax, resnet_jax.run, resnet_jax.distributed.lock"],
        cwd=tmp_path,
        env=os.environ
        | {
            "HOME": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
    )
    assert ended.returncode == 0
    assert list(tmp_path.rglob("*")) == []
