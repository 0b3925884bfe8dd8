"""Which process holds a lock, and whether it is alive."""

import dataclasses
import json
import os
import platform
import time
import uuid
from pathlib import Path

ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


@dataclasses.dataclass(frozen=True)
class Owner:
    """What a lock's file says of the process that holds it.

    Attributes:
      token: random, of this one lock.
      host, since: for people: the machine's name, and when the lock was taken.
      system: the booted system and the space of process ids, in which no two live processes have
        the same id.
      process, began: the process's id and when it began, in ticks since the boot; "" if unknown.
      beat: goes up as long as the process lives.
      is_stopping: whether it is about to end.
    """

    token: str
    host: str
    since: str
    system: str
    process: int
    began: str
    beat: int = 0
    is_stopping: bool = False

    @classmethod
    def this_process(cls, host: str | None = None) -> "Owner":
        """Returns this process as an owner, or as it would be on a machine called `host`."""
        process = os.getpid()
        return cls(
            token=uuid.uuid4().hex,
            host=platform.node() if host is None else host,
            since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            system=_system() if host is None else host,
            process=process,
            began=_beginning(process),
        )

    @classmethod
    def read(cls, content: bytes) -> "Owner":
        """Reads what a lock's file holds, whatever that is."""
        try:
            owner = cls(**json.loads(content))
            if all(type(getattr(owner, f.name)) is f.type for f in dataclasses.fields(cls)):
                return owner
        except (ValueError, TypeError, RecursionError):
            pass
        # Cut short by a full disk or a power cut, or not ours: its owner may live all the same.
        return cls(repr(content), "an unknown machine", "an unknown time", "", 0, "")

    def state_here(self, here: "Owner") -> str:
        """Returns whether the owner is alive, dead or unknown, seen from the process `here`."""
        if self.system != here.system:
            return UNKNOWN
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return DEAD
        except (OSError, OverflowError):
            pass  # The process is another user's, which does not say whether it is the owner.
        began = _beginning(self.process)
        if not (began and self.began):
            return UNKNOWN
        return ALIVE if began == self.began else DEAD


def _system() -> str:
    """Returns what tells this boot and this space of process ids from others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # No Linux, so no container either.
        return platform.node()


def _beginning(process: int) -> str:
    """Returns when a process began, "ended" after its end, "" where that cannot be seen."""
    try:
        # The name, in brackets, may hold blanks and brackets of its own.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    # A process that has ended stays there until its parent asks for its status.
    return "ended" if fields[0] in "ZX" else fields[19]
