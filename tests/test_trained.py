"""Trained models by name."""

import doctest
import shutil

import pytest
from ase.build import molecule
from conftest import ROOT, schnet

import schnet as package
from schnet.errors import ModelError
from schnet.simulation.md import md
from schnet.trained import find_model, trained_models


def test_committed_models_have_names():
    named = trained_models()
    assert {"md17_ethanol", "md17_aspirin", "qm9_U0", "c20"} <= set(named)
    ethanol = named["md17_ethanol"]
    assert ethanol.forces and ethanol.n_train == 1000 and ethanol.unit == "kcal/mol/Å"
    assert all(run.file.exists() and run.error > 0 for run in named.values())
    # of several runs the one with the smallest error
    uracil = (ROOT / "results/replication/small/runs/md17_uracil/energy+forces").glob("*/*/*")
    from schnet.run import read_metrics

    kept = [folder for folder in uracil if (folder / "model.pt").exists()]
    errors = {f: read_metrics(f)["parts"]["test"]["forces"]["mae"] for f in kept}
    assert len(errors) > 1
    assert named["md17_uracil"].file.parent == min(errors, key=errors.get)


def test_a_name_does_wherever_a_file_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("md17_ethanol") == trained_models()["md17_ethanol"].file
    atoms = molecule("CH3CH2OH")
    atoms.calc = package.SchNetCalculator("md17_ethanol")
    by_file = molecule("CH3CH2OH")
    by_file.calc = package.SchNetCalculator(find_model("md17_ethanol"))
    assert atoms.get_potential_energy() == by_file.get_potential_energy()
    md(atoms, "md17_ethanol", tmp_path / "md", steps=2)
    atoms.write(tmp_path / "e.xyz")
    done = schnet("predict", "md17_ethanol", tmp_path / "e.xyz", "-o", tmp_path / "p.extxyz")
    assert done.returncode == 0, done.stderr
    shown = schnet("models").stdout
    (line,) = [line for line in shown.splitlines() if "md17_ethanol " in line]
    assert (
        "kcal/mol/Å" in line
        and "H C O" in line
        and "1,000" in line
        and "200,000" in line
        and "gdml" in line
    )
    assert "85 elements" in shown and "import-tf" in shown
    assert schnet("models", "md17_ethanol").stdout.strip() == str(find_model("md17_ethanol"))


def test_names_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="did you mean 'md17_ethanol'"):
        find_model("md17_etanol")
    assert find_model("nothing.pt").name == "nothing.pt"  # its reader says what is wrong
    with pytest.raises(AttributeError, match="no attribute 'SchNett'"):
        _ = package.SchNett
    assert package.load_model is not None and "load_model" in package.__all__
    monkeypatch.setattr("schnet.trained.CHECKOUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="clone the repository"):
        find_model("md17_ethanol")


def test_the_best_of_ones_own_runs_counts(tmp_path, monkeypatch):
    """Runs of the working directory's workflow come beside the committed ones."""
    (tmp_path / "workflow" / "experiments").mkdir(parents=True)
    best = trained_models()["md17_ethanol"].file.parent
    mine = tmp_path / "results/small/runs/md17_ethanol/energy+forces/mine/n1000/rep0"
    shutil.copytree(best, mine)
    metrics = (mine / "metrics.json").read_text()
    error = str(trained_models()["md17_ethanol"].error)
    assert error in metrics
    (mine / "metrics.json").write_text(metrics.replace(error, "0.001"))
    monkeypatch.chdir(tmp_path)
    assert find_model("md17_ethanol") == mine / "model.pt"


@pytest.mark.parametrize("name", package.__all__)
def test_examples_of_what_can_be_imported(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = getattr(package, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={name: thing})
    assert found.examples
    said: list[str] = []
    doctest.DocTestRunner().run(found, out=said.append)
    assert not said, "".join(said)
