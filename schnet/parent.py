"""Work that ends with the process that asked for it: nothing goes on that nobody waits for."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading

log = logging.getLogger("schnet")
#: environment variable with the number of a process on this machine; the workflow sets its own
ENDS_WITH = "SCHNET_ENDS_WITH"


def end_with_parent() -> None:
    """Send SIGTERM to this process as soon as the one that ``ENDS_WITH`` names is gone.

    A training then writes a checkpoint. Nothing happens without the variable, as in a command
    typed by hand, behind nohup or not, and where the number means nothing: outside Linux, in a
    container with numbers of its own.
    """
    number = os.environ.get(ENDS_WITH, "")
    if not number.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        descriptor = os.pidfd_open(int(number))
    except OSError:
        return
    threading.Thread(target=_watch, args=(descriptor,), daemon=True).start()


def _watch(descriptor: int) -> None:
    select.select([descriptor], [], [])  # readable when the process ends
    log.warning("the workflow that started this has ended")
    os.kill(os.getpid(), signal.SIGTERM)
