"""A lock on a directory, so that two processes do not write the same run."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from resnet_jax.distributed.owner import ALIVE, DEAD, UNKNOWN, Owner
from resnet_jax.errors import UserError, writing

FILE = "lock.json"
# A network file system may show another machine's change only after a minute.
PATIENCE_SECONDS = 60
_BEAT_SECONDS = 5
_LOOK_SECONDS = 0.25
_MOST_TRIES = 80


class LockLost(UserError):
    """Another process has taken the directory: this one must not write there any more."""


class Lock:
    """Holds a directory for this process between `acquire` and `release`, or as a context.

    The owner is known by a random token, since process ids come again, in containers at once. One
    that lived on this system and is gone is replaced at once. Of one elsewhere only its beat is
    watched, and no clock compared: if it changes, the lock is refused, and if it does not for
    `PATIENCE_SECONDS`, the owner is taken for dead. An owner that says that it is stopping is
    waited for. In a bucket, where no file can be created only if it is absent, two that begin in
    the same second may both succeed; the first then learns from `check` that it lost the lock.

    Args:
      directory: made if it is absent.
      say: called with a line when the lock must be waited for.
      is_stopping: whether this process is about to end; asked in a thread, may be set later.
      host: this machine's name; None asks the system.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        say: Callable[[str], None] = print,
        is_stopping: Callable[[], bool] = lambda: False,
        host: str | None = None,
    ):
        self.is_stopping = is_stopping
        self._directory = epath.Path(directory)
        self._path = self._directory / FILE
        self._say = say
        self._me = Owner.this_process(host)
        self._released = threading.Event()
        self._beats: threading.Thread | None = None
        self._is_new = False

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    @property
    def token(self) -> str:
        """What tells this lock from every other."""
        return self._me.token

    def acquire(self) -> None:
        """Takes the lock; waits for an owner that is stopping or may be dead.

        Raises:
          UserError: another process holds it, or the directory cannot be written to.
        """
        with writing(str(self._directory)):
            self._is_new = not self._directory.exists()
            self._directory.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._wait_for_owner()
            # Where directories cannot be held exclusively, another may have replaced the same dead
            # owner in the same moment.
            self._raise_if_taken()
        self._beats = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beats.start()

    def release(self) -> None:
        """Gives the lock back if it is still ours."""
        self._released.set()
        if self._beats is not None:
            self._beats.join()
            with contextlib.suppress(OSError):
                self._remove(self._me.token)
            if self._is_new:
                # A start that ends with an error leaves nothing behind.
                with contextlib.suppress(OSError):
                    os.rmdir(self._directory)

    def check(self) -> None:
        """Checks that the lock is still ours; call it before writing what must not be mixed up.

        Raises:
          LockLost: it is gone, or another's.
        """
        # A lock that cannot be read now says nothing; what is then written fails for itself.
        with contextlib.suppress(OSError):
            self._raise_if_taken()

    def _raise_if_taken(self) -> None:
        owner = self._read()
        if owner is None:
            raise LockLost(
                f"{self._path} is gone: the directory was cleared or given to another run, so this"
                " one stops and writes nothing more there"
            )
        if owner.token != self._me.token:
            raise LockLost(
                f"{_describe(self._directory, owner)}, which took it over from this one: this one"
                " stops and writes nothing more there"
            )

    def _wait_for_owner(self) -> None:
        """Returns when the lock may be taken.

        Raises:
          UserError: its owner is alive.
        """
        seen, since = None, time.monotonic()
        while (owner := self._read()) is not None:
            state = owner.state_here(self._me)
            changed = seen is not None and (owner.token, owner.beat) != seen
            if (state == ALIVE or changed) and not owner.is_stopping:
                raise UserError(
                    f"{_describe(self._directory, owner)}: wait until it ends, stop it, or name"
                    " another directory"
                )
            is_silent = time.monotonic() - since >= PATIENCE_SECONDS
            if state == DEAD or (state == UNKNOWN and not changed and is_silent):
                self._remove(owner.token)
                return
            if seen is None:
                self._say(f"{_describe(self._directory, owner)}: {_reason_to_wait(owner)}")
            if seen is None or changed:
                seen, since = (owner.token, owner.beat), time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _read(self) -> Owner | None:
        return _read(self._path)

    def _create(self) -> bool:
        """Makes the file, whole from the start, unless there is one."""
        if _is_local(self._path):
            new = self._write_beside()
            try:
                os.link(new, self._path)
            except FileExistsError:
                return False
            except OSError:  # A file system without hard links.
                with contextlib.suppress(FileExistsError), Path(self._path).open("x") as file:
                    file.write(self._text())
                    return True
                return False
            finally:
                new.unlink()
        elif self._path.exists():
            return False
        else:
            self._path.write_text(self._text())
        return True

    def _remove(self, token: str) -> None:
        """Removes the file if it still is the one of `token`."""
        with _held(self._directory):
            owner = self._read()
            if owner is not None and owner.token == token:
                self._path.unlink(missing_ok=True)
                self._beside(token).unlink(missing_ok=True)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._released.wait(_LOOK_SECONDS):
            is_stopping = self._me.is_stopping or self.is_stopping()
            if is_stopping == self._me.is_stopping and time.monotonic() - last < _BEAT_SECONDS:
                continue
            last = time.monotonic()
            self._me = dataclasses.replace(
                self._me, beat=self._me.beat + 1, is_stopping=is_stopping
            )
            # A beat that cannot be written now is made up for by the next.
            with contextlib.suppress(OSError), _held(self._directory):
                owner = self._read()
                if owner is None or owner.token != self._me.token:
                    return
                if _is_local(self._path):
                    self._write_beside().replace(self._path)
                else:
                    self._path.write_text(self._text())

    def _write_beside(self) -> epath.Path:
        new = self._beside(self._me.token)
        new.write_text(self._text())
        return new

    def _beside(self, token: str) -> epath.Path:
        return self._directory / f".{FILE}.{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    def _text(self) -> str:
        return json.dumps(dataclasses.asdict(self._me)) + "\n"


def read_token(directory: epath.PathLike) -> str:
    """Returns what tells a directory's lock from every other, "" where there is none to see."""
    try:
        owner = _read(epath.Path(directory) / FILE)
    except OSError:
        return ""
    return "" if owner is None else owner.token


def _read(path: epath.Path) -> Owner | None:
    try:
        return Owner.read(path.read_bytes())
    except FileNotFoundError:
        return None


def _describe(directory: epath.Path, owner: Owner) -> str:
    return f"{directory} is in use by process {owner.process} on {owner.host} since {owner.since}"


def _reason_to_wait(owner: Owner) -> str:
    if owner.is_stopping:
        return "it is stopping, and this one waits for it"
    return f"whether it lives cannot be seen from here; taken over after {PATIENCE_SECONDS:g} s"


def _is_local(path: epath.Path) -> bool:
    return "://" not in str(path)


@contextlib.contextmanager
def _held(directory: epath.Path) -> Iterator[None]:
    """Keeps the other processes of this machine out of the same section."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # A bucket: tokens are compared, and that is all that can be done.
        yield
        return
    try:
        # Some network file systems cannot hold a directory, and a stopped process holds on to it.
        for _ in range(_MOST_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOOK_SECONDS / 10)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
