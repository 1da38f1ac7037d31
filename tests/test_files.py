"""Files are complete or absent: full disks, signals, what killed processes left behind."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, schnet

from schnet.files import write_text, write_yaml
from schnet.run import make_spec
from schnet.training.loop import train


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory):
    """A folder with a trajectory of ethanol that takes some seconds to convert."""
    folder = tmp_path_factory.mktemp("ethanol")
    rng = np.random.default_rng(0)
    grid = np.stack(np.unravel_index(np.arange(9), (3, 3, 3)), 1) * 1.5
    r = grid + rng.normal(0, 0.05, (20_000, 9, 3))
    z = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
    np.savez(folder / "md17_ethanol.npz", z=z, R=r, E=r[:, 0, :1], F=r)
    return folder


def small_files():
    """A file may have 100 kB, then writing fails: the nearest thing to a full disk everywhere."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def limited(*args):
    """`schnet …` as a process that cannot write large files."""
    command = [sys.executable, "-m", "schnet", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=small_files)


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk of 100 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_conversion_beyond_the_limit_of_file_sizes(ethanol, tmp_path):
    done = limited("data", "convert", "md17_ethanol", ethanol, tmp_path / "e.h5")
    assert done.returncode == 2 and "e.h5: larger than a file may become here" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and names(tmp_path) == []


def test_conversion_on_a_disk_that_is_really_full(ethanol, full_disk):
    done = schnet("data", "convert", "md17_ethanol", ethanol, full_disk / "e.h5")
    assert done.returncode == 2 and "e.h5: no space left on the disk" in done.stderr
    assert names(full_disk) == []


def test_evaluation_beyond_the_limit_of_file_sizes(toy_run, tmp_path):
    """The predictions do not fit; nothing is lost, and without the limit it goes on."""
    run = tmp_path / "run"
    train(make_spec(toy_run | {"steps": 10}), run, device="cpu")
    before = names(run)
    command = [sys.executable, "-m", "schnet", "evaluate", str(run), "--device", "cpu"]

    def tiny_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=tiny_files)
    assert done.returncode == 2 and "predictions.h5: larger than a file" in done.stderr
    assert names(run) == before
    assert schnet("evaluate", run, "--device", "cpu").returncode == 0


def test_training_and_model_on_a_full_disk(toy_run, tmp_path, full_disk):
    """Checkpoint and model do not fit: one line says so, and no half of a file is left."""
    write_yaml(tmp_path / "run.yaml", toy_run | {"steps": 10, "model": {"n_features": 64}})
    done = schnet("train", tmp_path / "run.yaml", "-o", full_disk / "run", "--device", "cpu")
    assert done.returncode == 2 and "checkpoint.pt: no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [f for f in full_disk.rglob("*") if f.suffix in (".pt", ".tmp")]


def started(*args, watch):
    """`schnet …` as a process, as soon as a temporary file lies in the folder ``watch``."""
    process = subprocess.Popen([sys.executable, "-m", "schnet", *map(str, args)], cwd=ROOT)
    while not list(watch.glob(".*.tmp*")):
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_conversion_that_is_ended_or_killed(ethanol, tmp_path):
    arguments = ("data", "convert", "md17_ethanol", ethanol, tmp_path / "e.h5")
    process = started(*arguments, watch=tmp_path)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM and names(tmp_path) == []
    process = started(*arguments, watch=tmp_path)
    process.kill()
    process.wait()
    (left,) = names(tmp_path)
    assert subprocess.run(["git", "check-ignore", "-q", left], cwd=ROOT).returncode == 0
    assert schnet(*arguments).returncode == 0 and names(tmp_path) == ["e.h5"]


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "table.csv").mkdir()
    done = schnet("table", "table_3", "-o", tmp_path / "table", "--scale", "demo")
    assert done.returncode == 2 and f"{tmp_path}/table.csv: is a folder" in done.stderr
    assert list((tmp_path / "table.csv").iterdir()) == []


def test_the_name_of_a_table_may_have_a_suffix(tmp_path):
    """And where there is no result, that is said."""
    where = ("--scale", "demo", "--results-dir", tmp_path / "nowhere")
    done = schnet("table", "table_3", "-o", tmp_path / "table.csv", *where)
    assert done.returncode == 0 and "nowhere/demo/runs: no such folder" in done.stderr
    assert names(tmp_path) == [f"table.{kind}" for kind in ("csv", "html", "json", "md", "tex")]


def test_temporary_files_of_others_are_removed_when_nobody_writes_them(tmp_path):
    """Those of processes that live stay, on this machine and, for a while, on another one."""
    code = (
        "import sys, time\nfrom schnet.files import atomic\n"
        "with atomic(sys.argv[1]) as f:\n f.write_text(''); print(flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.txt")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (living,) = names(tmp_path)
        fresh, old = tmp_path / ".a.txt.other-1.tmp.txt", tmp_path / ".a.txt.another-1.tmp.txt"
        for file in (fresh, old):
            file.write_text("")
        os.utime(old, (0, 0))
        write_text(tmp_path / "a.txt", "content")
        assert names(tmp_path) == sorted([living, fresh.name, "a.txt"])
        process.kill()
    write_text(tmp_path / "a.txt", "content")
    assert names(tmp_path) == sorted([fresh.name, "a.txt"])
