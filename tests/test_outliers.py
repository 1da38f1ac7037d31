"""benchmarks/outliers.py: the largest errors of a run, atom by atom."""

import sys

import h5py
import numpy as np

from benchmarks import outliers
from schnet.evaluation import evaluate
from schnet.run import make_spec
from schnet.training.loop import train


def test_atoms_of_the_largest_errors(toy_run, tmp_path, capsys, monkeypatch):
    train(make_spec(toy_run), tmp_path / "run", device="cpu")
    evaluate(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["outliers", str(tmp_path / "run"), "--largest", "1"])
    outliers.main()
    shown = capsys.readouterr().out

    with h5py.File(tmp_path / "run" / "predictions.h5") as h5:
        error = h5["test/predicted"][:] - h5["test/true"][:]
        worst = h5["test/index"][:][np.abs(error).argmax()]
    heading, _, *atoms = shown[shown.index(": error") :].splitlines()
    assert f"m{worst + 1}: error" in shown
    assert np.isclose(float(heading.split()[2]), error[np.abs(error).argmax()], rtol=1e-3)
    # all pairs are neighbours in molecules
    assert all(int(line.split()[1]) == len(atoms) - 1 for line in atoms)
    assert f"of {len(error):,} test structures" in shown
