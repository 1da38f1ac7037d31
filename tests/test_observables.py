"""Observables of trajectories, with errors of correlated numbers."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from scipy.stats import norm

from schnet.cli import main
from schnet.errors import DataError
from schnet.simulation import observables as ob
from schnet.simulation.md import md


def test_blocking_finds_the_error_of_correlated_numbers():
    rng = np.random.default_rng(0)
    a, n = 0.9, 20000
    exact = np.sqrt((1 + a) / (1 - a) / n)  # of the mean of this process, of variance 1
    errors = []
    for _ in range(5):
        x, noise = np.zeros(n), rng.normal(0, np.sqrt(1 - a * a), n)
        for k in range(1, n):
            x[k] = a * x[k - 1] + noise[k]
        mean, error = ob.blocking(x)
        errors.append(error)
        assert abs(mean) < 5 * error
    assert np.mean(errors) == pytest.approx(exact, rel=0.2)
    white = rng.normal(size=n)
    assert ob.blocking(white)[1] == pytest.approx(1 / np.sqrt(n), rel=0.1)
    assert ob.blocking(np.ones(100)) == (1.0, 0.0)


def test_distances_of_a_known_geometry(tmp_path):
    atoms = Atoms("H3", [[0, 0, 0], [1, 0, 0], [3, 0, 0]])
    positions = np.repeat(atoms.positions[None, None], 8, 0)
    assert ob.nearest_neighbours(positions)[0, 0].tolist() == [[1], [1], [2]]
    assert ob.nearest_neighbours(positions, 2)[0, 0].tolist() == [[1, 3], [1, 2], [2, 3]]
    assert ob.diameters(positions) == pytest.approx(3)
    log = pd.DataFrame({"time_ps": np.arange(8), "total_eV": 2.0 + 0.5 * np.arange(8)})
    log["temperature_K"] = log["potential_eV"] = 1.0
    frames = ob.Frames(positions, atoms.numbers, log)
    h = ob.pair_distribution(frames, np.arange(0, 5, 0.5))
    assert (h["density"] * 0.5).sum() == pytest.approx(1)
    assert h["density"][h["r"] == 1.25].item() == pytest.approx(2 / 3)
    table = ob.observables(frames).set_index("observable")
    assert table.loc["nearest neighbour", "mean"] == pytest.approx(4 / 3)
    assert table.loc["drift of the conserved quantity", "mean"] == pytest.approx(0.5)
    assert ob.observables(frames).attrs["frames"] == 7
    with pytest.raises(DataError, match="has the run finished"):
        ob.read_frames(tmp_path)


def test_differences_and_skewness_of_known_distributions():
    rng = np.random.default_rng(0)
    edges = np.linspace(-6, 6, 61)
    one, same, shifted = (rng.normal(m, 1, (50, 400)) for m in (0, 0, 0.5))
    tables = [ob.distribution(x, edges) for x in (one, same, shifted)]
    share, noise = ob.difference(tables[0], tables[1])
    assert 0.5 * noise < share < 2 * noise  # nothing but noise
    share, noise = ob.difference(tables[0], tables[2])
    exact = 2 * norm.cdf(0.25) - 1  # of two normal distributions half a deviation apart
    assert share == pytest.approx(exact, abs=0.02) and share > 5 * noise
    assert abs(ob.skewness(one)[0]) < 4 * ob.skewness(one)[1]
    value, error = ob.skewness(rng.exponential(size=(100, 1000)))
    assert value == pytest.approx(2, abs=0.1) and 0 < error < 0.1


def test_observables_of_a_trajectory(model_file, ethanol, tmp_path):
    md(ethanol, model_file, tmp_path, steps=100, interval=5)
    table = ob.observables(ob.read_frames(tmp_path)).set_index("observable")
    assert 0.9 < table.loc["nearest neighbour", "mean"] < 1.3
    assert table.loc["nearest neighbour", "error"] > 0
    assert torch.isfinite(torch.tensor(table["mean"].to_numpy())).all()


def test_observables_on_the_screen(model_file, ethanol, tmp_path, capsys):
    md(ethanol, model_file, tmp_path, steps=60, interval=5)
    assert main(["observables", str(tmp_path), "-o", str(tmp_path / "o.csv")]) == 0
    shown = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "o.csv").set_index("observable")
    row = next(line for line in shown.splitlines() if line.startswith("potential energy"))
    value, error = re.search(r"(\S+) ± (\S+) eV", row).groups()
    expected = table.loc["potential energy"]
    assert float(value) == pytest.approx(expected["mean"], abs=expected["error"])
    assert float(error) == pytest.approx(expected["error"], rel=0.06)
    assert main(["observables", str(tmp_path), "--neighbours", "9"]) == 2
