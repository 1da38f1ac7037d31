"""Several trainings in one job, side by side: SchNet is small for a modern GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_VARIABLE = "SCHNET_TOGETHER"


def announce(members: dict[str, list]) -> None:
    """Tell the trainings that this process starts which ones belong together.

    Args:
        members: run directory -> [settings of the run, log file]; the settings are flat, scientific
            and execution together, paths included (``RunSpec.to_dict``).
    """
    os.environ[_VARIABLE] = json.dumps(members)


def announced() -> dict[str, list]:
    """What was announced to this process, once: its own children are told nothing."""
    return json.loads(os.environ.pop(_VARIABLE, "{}"))


def train_together(members: dict[str, list], own: str, *, threads: int, device: str) -> int:
    """Train every member of a group job in a process of its own.

    Who ended before ends again in seconds, from its last checkpoint. One that fails leaves the
    others alone: its log says why. SIGTERM is passed on, and all write checkpoints.

    Args:
        members: see ``announce``.
        own: the run directory that this process was started for; its messages are not redirected.
        threads, device: of each training.

    Returns:
        The exit status of ``own``.
    """
    running: dict[str, subprocess.Popen] = {}

    def pass_on(number, _):
        for process in running.values():
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    for out, (settings, log) in members.items():
        command = [sys.executable, "-m", "schnet.cli", "train", json.dumps(settings)]
        command += ["--output", out, "--threads", str(threads), "--device", device]
        if out == own:
            running[out] = subprocess.Popen(command)
            continue
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as errors:
            running[out] = subprocess.Popen(command, stderr=errors)
    codes = {out: process.wait() for out, process in running.items()}
    # ended by a signal: the exit status that a shell would give
    return codes[own] if codes[own] >= 0 else 128 - codes[own]
