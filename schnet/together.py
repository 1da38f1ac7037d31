"""Several trainings in one job, side by side: SchNet is small for a modern GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_VARIABLE = "SCHNET_TOGETHER"


def announce(members: dict[str, list]):
    """Tell the trainings that this process starts which ones belong together; members as in ``train_together``."""
    os.environ[_VARIABLE] = json.dumps(members)


def announced() -> dict[str, list]:
    """What was announced to this process, once."""
    return json.loads(os.environ.pop(_VARIABLE, "{}"))


def train_together(members: dict[str, list], own: str, *, threads: int, device: str) -> int:
    """Train every member of a group job in a process of its own; returns the exit status of ``own``.

    members: run directory -> [settings of the run, log file]. Who ended before ends again in seconds, from its last
    checkpoint. One that fails leaves the others alone: its log says why. SIGTERM is passed on, and all write checkpoints.
    """
    running = {}
    signal.signal(signal.SIGTERM, lambda number, _: [process.send_signal(number) for process in running.values()])
    for out, (settings, log) in members.items():
        command = [sys.executable, "-m", "schnet.cli", "train", json.dumps(settings), "--output", out]
        command += ["--threads", str(threads), "--device", device]
        if out == own:
            running[out] = subprocess.Popen(command)
        else:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as errors:
                running[out] = subprocess.Popen(command, stderr=errors)
    codes = {out: process.wait() for out, process in running.items()}
    return codes[own] if codes[own] >= 0 else 128 - codes[own]
