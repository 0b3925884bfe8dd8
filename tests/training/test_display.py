"""What a person sees while something is waited for."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from running import ROOT

from resnet_jax.training.reporting.display import Display

PROGRAM = """
import time
from resnet_jax.training.reporting.display import Display
display = Display()
with display.waiting("compiling"):
    time.sleep(2.5)
display.row("compiled", "in 2.5 s")
"""


def test_on_a_terminal_the_seconds_count():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "compiling ... 00:00" in shown
    assert "compiling ... 00:02" in shown
    assert done.stdout.decode() == "compiled  in 2.5 s\n"


def test_elsewhere_what_is_waited_for_is_a_line(capsys):
    with Display().waiting("compiling"):
        assert capsys.readouterr().out == "compiling ...\n"


def test_a_silent_process_says_nothing(capsys):
    display = Display(silent=True)
    with display.waiting("compiling"):
        display.row("devices", "8")
    assert capsys.readouterr() == ("", "")
