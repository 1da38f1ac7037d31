"""benchmarks/outliers.py: the largest errors of a run, atom by atom."""

import subprocess
import sys

import h5py
import numpy as np
from conftest import ROOT

from schnet.evaluation import evaluate
from schnet.run import make_spec
from schnet.training.loop import train


def test_atoms_of_the_largest_errors(toy_run, tmp_path):
    train(make_spec(toy_run), tmp_path / "run", device="cpu")
    evaluate(tmp_path / "run")
    command = [sys.executable, "-m", "benchmarks.outliers", str(tmp_path / "run"), "--largest", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = done.stdout

    with h5py.File(tmp_path / "run" / "predictions.h5") as h5:
        error = h5["test/predicted"][:] - h5["test/true"][:]
        worst = h5["test/index"][:][np.abs(error).argmax()]
    heading, _, *atoms = shown[shown.index(": error") :].splitlines()
    assert f"m{worst + 1}: error" in shown
    assert np.isclose(float(heading.split()[2]), error[np.abs(error).argmax()], rtol=1e-3)
    # all pairs are neighbours in molecules
    assert all(int(line.split()[1]) == len(atoms) - 1 for line in atoms)
    assert f"of {len(error):,} test structures" in shown
