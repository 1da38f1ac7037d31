"""A model of one's own data in one command."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from conftest import ROOT, snapshot

import schnet as package
from schnet import SchNetCalculator
from schnet.cli import main
from schnet.data.own import convert_file
from schnet.data.store import Store
from schnet.errors import ConfigError, DataError
from schnet.files import read_yaml
from schnet.models import load_model
from schnet.predict import predict as package_predict
from schnet.trained import find_model
from schnet.units import factor


def labelled(atoms, calculator=None):
    """A copy with energy and forces of EMT as results."""
    atoms = atoms.copy()
    atoms.calc = calculator or EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="module")
def frames():
    """Distorted ethanol molecules."""
    random = np.random.default_rng(0)
    ethanol = molecule("CH3CH2OH")
    images = []
    for _ in range(60):
        moved = ethanol.copy()
        moved.positions += random.normal(0, 0.04, moved.positions.shape)
        images.append(labelled(moved))
    return images


@pytest.fixture
def file(frames, tmp_path):
    write(tmp_path / "mine.extxyz", frames)
    return tmp_path / "mine.extxyz"


def train(file, out, *options):
    return main(["train", "--data", str(file), "-o", str(out), "--device", "cpu", *options])


def test_from_a_structure_file_to_a_calculator(file, frames, tmp_path, capsys):
    out = tmp_path / "model"
    assert train(file, out, "--steps", "300") == 0
    said = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())["parts"]["test"]
    assert f"{metrics['energy']['mae']:.4g}" in said and "SchNetCalculator" in said
    true = np.array([atoms.get_potential_energy() for atoms in frames])
    assert metrics["energy"]["mae"] < 0.3 * true.std() and metrics["energy"]["unit"] == "eV"
    assert metrics["forces"]["unit"] == "eV/Å"
    assert {"learning.png", "parity.png", "settings.yaml"} <= {p.name for p in out.iterdir()}
    atoms = frames[0].copy()
    atoms.calc = SchNetCalculator(out / "model.pt")
    assert atoms.get_potential_energy() == pytest.approx(true[0], abs=true.std())
    # the same command again finds it finished; other data do not overwrite it
    before = (out / "model.pt").read_bytes()
    assert train(file, out) == 0
    assert (out / "model.pt").read_bytes() == before
    write(tmp_path / "other.extxyz", frames[:40])
    assert train(tmp_path / "other.extxyz", out) == 2
    assert "holds other data" in capsys.readouterr().err
    assert Store(out / "data.h5").digest == read_yaml(out / "run.yaml")["data"]["digest"]
    # what was chosen is a run file
    settings = read_yaml(out / "settings.yaml")
    assert settings["steps"] == 300 and settings["n_train"] == 48 and settings["ema"] < 0.95
    options = ["-o", str(tmp_path / "again"), "--device", "cpu"]
    more = ["--data", str(out / "data.h5"), "--split", str(out / "split.npz")]
    assert main(["train", str(out / "settings.yaml"), *options, *more]) == 0
    assert (tmp_path / "again" / "model.pt").exists()


def test_steps_fit_into_the_time(file, tmp_path):
    assert train(file, tmp_path / "model", "--time", "2s") == 0
    about = read_yaml(tmp_path / "model" / "run.yaml")
    assert about["run"]["steps"] >= 100 and about["result"]["seconds"] < 60


def test_crystals_get_a_cutoff_and_converted_data_are_taken(tmp_path):
    random = np.random.default_rng(0)
    images = []
    for _ in range(30):
        copper = bulk("Cu", cubic=True)
        copper.positions += random.normal(0, 0.05, copper.positions.shape)
        images.append(labelled(copper))
    write(tmp_path / "cu.traj", images)
    assert train(tmp_path / "cu.traj", tmp_path / "model", "--steps", "20") == 0
    run = read_yaml(tmp_path / "model" / "run.yaml")["run"]
    assert run["model"]["cutoff"] == 5.0 and run["forces"] == "forces"
    converted = tmp_path / "model" / "data.h5"
    options = ["--steps", "20", "--forces", "none", "--cutoff", "4.5"]
    assert train(converted, tmp_path / "second", *options) == 0
    run = read_yaml(tmp_path / "second" / "run.yaml")["run"]
    assert run["model"]["cutoff"] == 4.5 and run["forces"] is None


def test_other_labels_need_a_unit(frames, tmp_path, caplog):
    images = []
    for atoms in frames:
        image = Atoms(atoms.numbers, atoms.positions)
        image.info["gap"] = 1.0 + atoms.get_potential_energy()
        image.arrays["REF_forces"] = atoms.get_forces()
        images.append(image)
    write(tmp_path / "gap.extxyz", images)
    out = tmp_path / "gap.h5"
    with pytest.raises(ConfigError, match=r"--unit: the unit of gap must be given, one of eV"):
        convert_file(tmp_path / "gap.extxyz", out, target="gap")
    with pytest.raises(ConfigError, match=r"no label \(--target\) .*'gpa'.*gap"):
        convert_file(tmp_path / "gap.extxyz", out, target="gpa", unit="eV")
    with pytest.raises(ConfigError, match=r"REF_forces.*are no gradient of gap in Debye"):
        convert_file(tmp_path / "gap.extxyz", out, target="gap", unit="Debye", forces="REF_forces")
    assert convert_file(tmp_path / "gap.extxyz", out, target="gap", unit="meV") == ("gap", None)
    assert "REF_forces may be some" in caplog.text
    store = Store(out)
    assert store.properties["gap"].unit == "meV" and store.properties["gap"].kind == "other"
    assert store.structure(3).properties["gap"] == pytest.approx(images[3].info["gap"])


def test_files_that_cannot_be_meant(frames, tmp_path):
    slab = frames[0].copy()
    slab.cell, slab.pbc = [9, 9, 9], [True, True, False]
    crystal = labelled(bulk("Cu", cubic=True))
    unlabelled = frames[1].copy()
    cases = {
        "slab": ([labelled(slab)], "periodic along 2 of three directions"),
        "mixed": ([frames[0], crystal], "has molecules and crystals"),
        "no label": ([unlabelled], "has no label"),
        "one without": ([frames[0], unlabelled], "structure 1 has no energy"),
    }
    for name, (images, message) in cases.items():
        write(tmp_path / f"{name}.traj", images)
        with pytest.raises(DataError, match=message):
            convert_file(tmp_path / f"{name}.traj", tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_predictions_against_labels(frames, tmp_path, capsys):
    """Errors of energies and forces, in the model's unit; labels stay in the output."""
    model_file = str(find_model("md17_ethanol"))
    write(tmp_path / "one.extxyz", frames[:3])
    write(tmp_path / "two.traj", [frames[3], frames[4].copy()])
    files = [str(tmp_path / "one.extxyz"), str(tmp_path / "two.traj")]
    options = ["--device", "cpu", "--parity", str(tmp_path / "parity.png")]
    assert main(["predict", model_file, *files, *options]) == 0
    said = capsys.readouterr().out
    energies, errors, force_errors = [], [], []
    for atoms in frames[:4]:
        moved = atoms.copy()
        moved.calc = SchNetCalculator(model_file)
        energies.append(moved.get_potential_energy())
        errors.append(abs(energies[-1] - atoms.get_potential_energy()))
        force_errors.append(np.abs(moved.get_forces() - atoms.get_forces()))
    scale = factor("eV", load_model(model_file).unit)
    assert scale != 1
    assert f"energy: MAE {scale * np.mean(errors):.4g}, " in said and "against 4 labels" in said
    assert f"forces: MAE {scale * np.mean(force_errors):.4g}, " in said
    assert said.count("C2H6O") == 5
    assert (tmp_path / "parity.png").stat().st_size > 5000
    for name in ("out.extxyz", "out.xyz", "out.traj", "out.db"):
        assert main(["predict", model_file, *files, "-o", str(tmp_path / name)]) == 0
    for name in ("out.extxyz", "out.xyz", "out.traj"):
        images = read(tmp_path / name, ":")
        assert len(images) == 5
        assert images[3].get_potential_energy() == pytest.approx(frames[3].get_potential_energy())
        assert images[0].info["schnet_energy"] == pytest.approx(energies[0] * scale, rel=1e-6)
    assert main(["predict", model_file, *files, "-o", str(tmp_path / "out.csv")]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table["index"]) == [0, 1, 2, 0, 1] and table["label"].isna().sum() == 1
    assert main(["predict", model_file, *files, "-o", str(tmp_path / "out.whatever")]) == 2
    assert "out.whatever: its name says no format" in capsys.readouterr().err


def test_predictions_say_what_the_model_has_not_seen(file, frames, tmp_path, capsys):
    train(file, tmp_path / "model", "--steps", "2")
    model = tmp_path / "model" / "model.pt"
    known = load_model(model).provenance
    assert known["atoms"] == [9, 9] and known["elements"] == {"H": 48, "C": 48, "O": 48}
    smallest, _ = known["distances"]
    pulled, pushed = frames[0].copy(), frames[0].copy()
    pulled.positions *= 1.5
    pushed.positions *= 0.8
    cases = {
        "as trained": (frames[:3], []),
        "other sizes": ([frames[0], molecule("H2O")], ["1 of 2 structures have other sizes"]),
        "far apart": ([pulled], [f"up to {pulled.get_all_distances().max():.2f} Å apart"]),
        "close": ([pushed], [f"on {smallest:.2f} Å and more"]),
        "one atom": ([Atoms("H")], ["(there are 1 atoms)"]),
    }
    capsys.readouterr()
    for name, (images, cautions) in cases.items():
        write(tmp_path / "some.extxyz", images)
        assert main(["predict", str(model), str(tmp_path / "some.extxyz")]) == 0
        said = capsys.readouterr().out
        assert said.count("caution") == len(cautions), (name, said)
        assert all(text in said for text in cautions), (name, said)
    write(tmp_path / "some.extxyz", frames[:3])
    assert main(["predict", str(model), str(tmp_path / "some.extxyz"), "--parity", "p.weird"]) == 2
    assert "must end in" in capsys.readouterr().err
    shifted = [atoms.copy() for atoms in frames[:3]]
    for zero, said in ((0.0, False), (5000.0, True)):
        for atoms, frame in zip(shifted, frames, strict=False):
            atoms.info["energy"] = frame.get_potential_energy() + zero
        write(tmp_path / "shifted.extxyz", shifted)
        capsys.readouterr()
        assert main(["predict", str(model), str(tmp_path / "shifted.extxyz")]) == 0
        assert ("counted from the same zero?" in capsys.readouterr().out) == said
    content = torch.load(model, weights_only=True)
    content["provenance"] |= {"structures": 3000, "elements": {"H": 3000, "C": 3000, "O": 7}}
    torch.save(content, model)
    write(tmp_path / "some.extxyz", frames[:3])
    assert main(["predict", str(model), str(tmp_path / "some.extxyz")]) == 0
    assert "caution: O occurs in 7 of 3,000 training" in capsys.readouterr().out
    content["provenance"] = {"run": content["provenance"]["run"]}  # a file of an earlier version
    torch.save(content, model)
    assert main(["predict", str(model), str(tmp_path / "some.extxyz")]) == 0
    assert "does not tell on what structures" in capsys.readouterr().out


def test_labels_of_other_names_and_shapes(frames, tmp_path):
    images = []
    for atoms in frames[:40]:
        image = Atoms(atoms.numbers, atoms.positions)
        image.info["dft_energy"] = atoms.get_potential_energy()
        image.arrays["dft_force"] = atoms.get_forces()
        image.arrays["flat_force"] = atoms.get_forces()[:, :2]
        images.append(image)
    write(tmp_path / "own.extxyz", images)
    wishes = ["--target", "dft_energy", "--unit", "eV", "--steps", "20", "--forces"]
    assert train(tmp_path / "own.extxyz", tmp_path / "model", *wishes, "dft_force") == 0
    assert find_model(tmp_path / "model") == tmp_path / "model" / "model.pt"
    assert train(tmp_path / "own.extxyz", tmp_path / "refused", *wishes, "flat_force") == 2
    assert not (tmp_path / "refused").exists()
    with pytest.raises(DataError, match=r"flat_force has the shape \[9, 2\]; forces are \[n, 3\]"):
        convert_file(
            tmp_path / "own.extxyz",
            tmp_path / "o.h5",
            target="dft_energy",
            forces="flat_force",
            unit="eV",
        )


def test_simulations_say_what_the_model_has_not_seen(file, frames, tmp_path, caplog, capsys):
    pulled = frames[0].copy()
    pulled.positions *= 1.5
    lost = frames[0].copy()
    lost.positions[2, 1] = np.nan
    write(tmp_path / "lost.xyz", lost, format="xyz")
    train(file, tmp_path / "model", "--steps", "2", "--model", '{"cutoff": 4.0}')
    for verb in (["predict"], ["md", "--steps", "4", "-o", str(tmp_path / "md")]):
        command = [*verb, "--device", "cpu"]
        names = [str(tmp_path / "lost.xyz"), str(tmp_path / "model" / "model.pt")]
        names = names[::-1] if verb == ["predict"] else names
        assert main([*command[:1], *names, *command[1:]]) == 2
        assert "not a finite number" in capsys.readouterr().err
    write(tmp_path / "single.xyz", Atoms("C"), format="xyz")
    main(["relax", str(tmp_path / "single.xyz"), "md17_ethanol", "-o", str(tmp_path / "single")])
    assert "other sizes" in caplog.text
    for name, atoms in {"known": frames[0], "pulled": pulled}.items():
        write(tmp_path / f"{name}.xyz", atoms, format="xyz")
        caplog.clear()
        command = ["relax", str(tmp_path / f"{name}.xyz"), "md17_ethanol", "--steps", "1"]
        main([*command, "-o", str(tmp_path / name), "--device", "cpu"])
        assert ("Å apart; the model was trained on" in caplog.text) == (name == "pulled")


def test_a_refused_call_changes_nothing(file, frames, tmp_path):
    out = tmp_path / "model"
    package.train(file, out, steps=20)
    before = snapshot(out)
    for wishes in ({"seed": 3}, {"n_train": 20}, {"steps": 30}, {"cutoff": 3.0}):
        with pytest.raises(ConfigError, match="a training with other settings was begun here"):
            package.train(file, out, **wishes)
    other = tmp_path / "other.extxyz"
    write(other, frames[:30])
    with pytest.raises(ConfigError, match="holds other data"):
        package.train(other, out)
    assert snapshot(out) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "data.h5").write_text("mine")
    with pytest.raises(ConfigError, match="holds other data"):
        package.train(file, foreign, steps=20)
    assert (foreign / "data.h5").read_text() == "mine"


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"steps": "100"}, "steps: '100'"),
        ({"n_train": 0}, "n_train: 0"),
        ({"seconds": -1}, "seconds: -1"),
        ({"cutoff": 0}, "cutoff: 0"),
        ({"seed": "a"}, "seed: 'a'"),
        ({"model": "x"}, "model: 'x'"),
        ({"n_trian": 3}, "did you mean 'n_train'"),
        ({"device": "cud"}, "did you mean 'cuda'"),
    ],
)
def test_wishes_that_make_no_sense(wishes, message, file, tmp_path):
    with pytest.raises(ConfigError, match=message):
        package.train(file, tmp_path / "model", **wishes)
    assert not (tmp_path / "model").exists()


def test_labels_in_another_unit_than_ase_reads(frames, tmp_path, capsys, caplog):
    """Energies under the usual name but in kcal/mol: both commands are told."""
    scale = factor("eV", "kcal/mol")
    images = []
    for atoms in frames[:40]:
        image = atoms.copy()
        results = {name: scale * value for name, value in atoms.calc.results.items()}
        image.calc = SinglePointCalculator(image, **results)
        images.append(image)
    images[7].calc.results.pop("forces")
    write(tmp_path / "kcal.extxyz", images)
    wishes = ["--unit", "kcal/mol", "--steps", "20"]
    train(tmp_path / "kcal.extxyz", tmp_path / "model", *wishes)
    assert "--unit kcal/mol" in capsys.readouterr().out
    assert "39 of 40 structures have forces" in caplog.text
    model = tmp_path / "model" / "model.pt"
    done = package_predict(model, [tmp_path / "kcal.extxyz"], unit="kcal/mol")
    true, _, unit = done.labels["energy"]
    assert unit == "kcal/mol" and true[0] == pytest.approx(scale * frames[0].calc.results["energy"])
    with pytest.raises(ConfigError, match="unit"):
        package.train(tmp_path / "model" / "data.h5", tmp_path / "again", unit="eV")


def test_frames_that_occur_twice_are_noticed(frames, tmp_path, caplog):
    """Two copies of a trajectory: most of the test part is in the training part."""
    write(tmp_path / "once.extxyz", frames)
    write(tmp_path / "twice.extxyz", [*frames, *frames])
    for name in ("once", "twice"):
        caplog.clear()
        package.train(tmp_path / f"{name}.extxyz", tmp_path / name, steps=2)
        assert ("are in the training part too" in caplog.text) == (name == "twice")


def relabelled(frames, energy=1.0, forces=1.0, odd=0.0):
    """Copies with labels times factors; the energy of the tenth is changed."""
    images = []
    for k, atoms in enumerate(frames):
        results = {
            "energy": energy * atoms.get_potential_energy() + (odd if k == 10 else 0.0),
            "forces": forces * atoms.get_forces(),
        }
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **results)
        images.append(copy)
    return images


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"forces": -1.0}, "forces with the wrong sign"),  # gradients
        ({"energy": 23.06}, "energies and forces in different units"),
        ({"odd": 500.0}, "structure 10: energy is 5"),
    ],
)
def test_labels_that_cannot_be_meant_are_noticed(change, said, frames, tmp_path, caplog):
    write(tmp_path / "mine.extxyz", relabelled(frames, **change))
    package.train(
        tmp_path / "mine.extxyz", tmp_path / "model", steps=10 if "odd" in change else 600
    )
    found = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert not found if said is None else any(said in message for message in found), found


def test_options_that_do_not_belong_together(file, tmp_path, capsys):
    assert main(["train"]) == 2
    assert "a run file, or --data with a structure file, is needed" in capsys.readouterr().err
    assert train(file, tmp_path / "m", "--split", "x.npz") == 2
    assert "--split: needs a run file" in capsys.readouterr().err
    (tmp_path / "my.yaml").write_text("{dataset: toy, target: energy}")
    assert main(["train", str(tmp_path / "my.yaml"), "--steps", "5"]) == 2
    assert "--steps: is for own data; here the run file says it" in capsys.readouterr().err
    write(tmp_path / "few.extxyz", read(file, ":8"))
    assert train(tmp_path / "few.extxyz", tmp_path / "m") == 2
    assert "8 structures are too few" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train(file, tmp_path / "m", "--time", "tomorrow")
    assert "'tomorrow' is no duration, as 90s, 10m or 2h" in capsys.readouterr().err
    # a run file of one's own is never written over
    (tmp_path / "run.yaml").write_text("{dataset: toy, target: energy}")
    assert main(["train", str(tmp_path / "run.yaml"), "--data", "d", "--split", "s"]) == 2
    assert "--output is needed" in capsys.readouterr().err


def test_the_tour_of_the_documentation(tmp_path):
    """The notebook runs from data to dynamics, and its numbers make sense."""
    tour = ROOT / "docs" / "tour.py"
    command = [sys.executable, str(tour)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout

    def number(pattern):
        return float(re.search(pattern, said).group(1))

    # energies of the frames spread over a tenth of an electronvolt and more
    assert number(r"energy: mean absolute error ([\d.]+) eV") < 0.05
    assert number(r"forces: mean absolute error ([\d.]+) eV/Å") < 0.2
    assert 200 < number(r"mean temperature (\d+) K") < 400
    assert "21 modes" in said
    model, teacher = re.search(r"CH3CH2OH +model +(\S+) eV, teacher +(\S+) eV", said).groups()
    assert float(model) == pytest.approx(float(teacher), abs=0.1)
    assert (tmp_path / "tour" / "temperature.png").stat().st_size > 5000
