"""Commands in copies of one process that has imported everything: as if they ran by themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_training import wait_for

from schnet.models.files import read_tensors
from schnet.warm import SOCKET

PARENT = f"""
import os, time
from schnet.warm import start
start()
print(os.environ.get("{SOCKET}", ""), flush=True)
time.sleep(1000)
"""
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


@pytest.fixture
def workflow():
    """A process that has called start(); its attribute ``socket`` is what commands need."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as p:
        p.socket = p.stdout.readline().strip()
        yield p
        p.kill()


def environment(workflow, **more):
    return {**os.environ, SOCKET: workflow.socket, **more}


def schnet(*arguments, env, **options):
    command = [sys.executable, "-m", "schnet", *map(str, arguments)]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def training(run, folder, env, **more):
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(run | more))
    return schnet("train", file, "-o", folder, "--device", "cpu", env=env)


def warm_process(workflow):
    """The number of the process that makes the copies."""
    children = Path(f"/proc/{workflow.pid}/task/{workflow.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def gone(number, seconds=30):
    until = time.monotonic() + seconds
    while Path(f"/proc/{number}/stat").exists() and time.monotonic() < until:
        if " Z " in Path(f"/proc/{number}/stat").read_text():
            return True
        time.sleep(0.01)
    return not Path(f"/proc/{number}").exists()


def test_a_copy_gives_the_same_bits(toy_run, tmp_path, workflow):
    results = {}
    for name, env in {"alone": dict(os.environ), "copy": environment(workflow)}.items():
        folder = tmp_path / name
        process = training(toy_run, folder, env)
        assert process.wait() == 0, process.stderr.read()
        assert "engine" in process.stderr.read()
        metrics = json.loads((folder / "metrics.json").read_text())
        results[name] = read_tensors(folder / "model.pt")["state"], metrics["parts"]
    alone, copy = results.values()
    assert alone[0].keys() == copy[0].keys()
    assert all((alone[0][key] == copy[0][key]).all() for key in alone[0])
    assert alone[1] == copy[1]


def test_output_status_and_directory_are_the_callers(tmp_path, workflow):
    env = environment(workflow)
    good = schnet("data", "describe", "nothing.h5", env=env, cwd=tmp_path)
    assert good.wait() == 2 and "nothing.h5" in good.stderr.read()
    version = schnet("--version", env=env)
    assert version.wait() == 0 and version.stdout.read().startswith("schnet ")
    wrong = schnet("trian", env=env)
    assert wrong.wait() == 2 and "invalid choice" in wrong.stderr.read()
    # more threads than a copy has: the command runs by itself, without the warm process too
    workflow.kill()
    assert schnet("--version", env=env).wait() == 0
    assert schnet("--version", env=env | {"OMP_NUM_THREADS": "2"}).wait() == 0


def test_signals_reach_the_copy(toy_run, tmp_path, workflow):
    process = training(toy_run, tmp_path / "run", environment(workflow), steps=10**6)
    wait_for(tmp_path / "run" / "checkpoint.pt", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert "checkpoint written" in process.stderr.read()


@pytest.mark.parametrize("killed", ["command", "workflow", "warm process", "copy"])
def test_nothing_goes_on_when_one_is_killed(toy_run, tmp_path, workflow, killed):
    env = environment(workflow, SCHNET_ENDS_WITH=str(workflow.pid))
    process = training(toy_run, tmp_path / "run", env, steps=10**6)
    wait_for(tmp_path / "run" / "checkpoint.pt", process)
    warm = warm_process(workflow)
    copy = int(Path(f"/proc/{warm}/task/{warm}/children").read_text())
    victims = {
        "command": process.pid,
        "workflow": workflow.pid,
        "warm process": warm,
        "copy": copy,
    }
    os.kill(victims[killed], signal.SIGKILL)
    assert gone(copy)
    status, message = process.wait(), process.stderr.read()
    if killed == "command":
        assert status == -signal.SIGKILL
        assert schnet("--version", env=env).wait() == 0  # the others go on
    if killed == "copy":
        assert status == 128 + signal.SIGKILL
    if killed == "warm process":
        assert status == 1 and "the process that ran this command was killed" in message
    if killed == "workflow":
        assert status in (1, 128 + signal.SIGTERM)
        assert gone(warm) and not Path(workflow.socket).parent.exists()
