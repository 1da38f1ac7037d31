"""Methods behind the seam: kernel ridge regression and the mean, against computations by hand."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import random_molecule, write_molecules

from schnet.data.splits import make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.data.structures import Structures, load
from schnet.descriptors import CRYSTALS, Matrices, distances, matrices
from schnet.errors import ConfigError, DataError, ModelError, SchNetError
from schnet.evaluation import evaluate
from schnet.files import read_json, read_yaml, write_json
from schnet.methods import (
    check_method,
    fit,
    hyperparameters_of_method,
    method,
    methods,
)
from schnet.methods import load as load_predictor
from schnet.methods.kernel_ridge import memory_mb
from schnet.models import load_model
from schnet.run import make_spec
from schnet.verify import verify


@pytest.fixture
def kernel_run(toy):
    """Settings of a kernel run on the toy data."""
    store, split = toy
    return {
        "dataset": "toy",
        "data": str(store.path),
        "split": str(split),
        "target": "energy",
        "method": "kernel_ridge",
        "model": {"gamma": [0.1, 1.0], "alpha": [1e-6, 1e-3]},
    }


def coulomb_matrix(numbers, positions):
    """Sorted by the norms of the rows, descending."""
    n = len(numbers)
    matrix = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i == j:
                matrix[i, i] = 0.5 * numbers[i] ** 2.4
            else:
                distance = np.linalg.norm(positions[i] - positions[j])
                matrix[i, j] = numbers[i] * numbers[j] / distance
    order = np.argsort(-np.linalg.norm(matrix, axis=1), kind="stable")
    return matrix[order][:, order]


def molecules_of(store, indices):
    return load(store, indices, ["energy"], dtype=torch.float64)


def test_methods_are_the_files():
    assert {"kernel_ridge", "mean", "neural"} <= set(methods())
    assert method("neural").HISTORY and not method("kernel_ridge").HISTORY


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="did you mean 'kernel_ridge'"):
        hyperparameters_of_method("kernel_rigde")
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        check_method("kernel_ridge", {"gama": [1.0]})
    with pytest.raises(ConfigError, match="none of laplacian, gaussian"):
        check_method("kernel_ridge", {"kernel": "cubic"})
    with pytest.raises(ConfigError, match="alpha: .* positive"):
        check_method("kernel_ridge", {"alpha": [0.1, -1]})
    with pytest.raises(ConfigError, match="energies only"):
        check_method("mean", {}, forces="forces")
    with pytest.raises(ConfigError, match="those of its architecture"):
        hyperparameters_of_method("neural")


def test_coulomb_matrices_by_hand():
    """Hydrogen and water."""
    hydrogen = np.array([[0, 0, 0], [0, 0, 0.74]])
    water = np.array([[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]])
    numbers = [1, 1, 1, 8, 1]
    data = Structures(numbers, np.concatenate([hydrogen, water]), [0, 2, 5], dtype=torch.float64)
    found = matrices("coulomb", data)
    assert found[0] == pytest.approx(np.array([[0.5, 1 / 0.74], [1 / 0.74, 0.5]]))
    o_h, h_h = 8 / np.hypot(0.76, 0.59), 1 / 1.52
    expected = [[0.5 * 8**2.4, o_h, o_h], [o_h, 0.5, h_h], [o_h, h_h, 0.5]]
    assert found[1] == pytest.approx(np.array(expected))


# ---- crystals ------------------------------------------------------------------------------------
def crystal(numbers, positions, cell):
    """One crystal; positions and cell in Å."""
    count = len(numbers)
    cells = np.asarray(cell, float)[None]
    return Structures(numbers, positions, [0, count], cell=cells, dtype=torch.float64)


def described(descriptor, numbers, positions, cell):
    return matrices(descriptor, crystal(numbers, positions, cell))[0]


def some_crystal(n=5):
    """Atoms of different elements in a skewed cell."""
    rng = np.random.default_rng(0)
    cell = np.array([[4.0, 0.3, 0], [0.5, 5.0, 0], [0.2, 0.4, 6.0]])
    return np.array([3, 8, 14, 26, 79])[:n], rng.uniform(size=(n, 3)) @ cell, cell


def test_sine_matrix_by_hand():
    """Caesium chloride: the vector between the atoms is half of all three of the cubic cell's."""
    a = 4.12
    found = described("sine", [17, 55], [[0, 0, 0], [a / 2] * 3], a * np.eye(3))
    between = 17 * 55 / (a * np.sqrt(3))  # sin²(π / 2) = 1 along every vector
    expected = [[0.5 * 55**2.4, between], [between, 0.5 * 17**2.4]]
    assert found == pytest.approx(np.array(expected))
    # a quarter of one vector
    found = described("sine", [17, 55], [[0, 0, 0], [a / 4, 0, 0]], a * np.eye(3))
    assert found[0, 1] == pytest.approx(17 * 55 / (0.5 * a))
    # no matrix element knows the size of a cell of one atom
    assert described("sine", [29], [[0, 0, 0]], 3 * np.eye(3)) == 0.5 * 29**2.4


def test_extended_coulomb_matrix_by_hand():
    """One atom in a cell so large that its six nearest images nearly are all that counts."""
    a = 9.0
    images = 6 * np.exp(-a) + 12 * np.exp(-a * np.sqrt(2))  # the next are beyond 15 Å
    found = described("extended_coulomb", [29], [[0, 0, 0]], a * np.eye(3))
    assert found == pytest.approx(0.5 * 29**2.4 + 29**2 * images, rel=1e-12)
    # caesium chloride: eight neighbours in eight cells, and those behind them, counted one by one
    a = 4.12
    found = described("extended_coulomb", [17, 55], [[0, 0, 0], [a / 2] * 3], a * np.eye(3))
    grid = a * np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3)

    def around(shift):
        lengths = np.linalg.norm(grid + shift, axis=1)
        return np.exp(-lengths[(lengths > 0) & (lengths < 15)]).sum()

    between, alike = 17 * 55 * around(a / 2), around(0)
    caesium, chlorine = (0.5 * z**2.4 + z**2 * alike for z in (55, 17))
    assert found == pytest.approx(np.array([[caesium, between], [between, chlorine]]), rel=1e-12)


def test_ewald_matrix_is_that_of_the_wigner_lattice():
    """Charges on a simple cubic lattice in a background: -2.837297 Z² / 2a each, as is well known.

    Of two or eight cells the matrix is another one, but its energy is that of two or eight.
    """
    a, energy = 3.0, -2.837297 * 29**2 / (2 * 3.0)
    assert described("ewald", [29], [[0, 0, 0]], a * np.eye(3)) == pytest.approx(energy, rel=1e-4)
    twice = described("ewald", [29, 29], [[0, 0, 0], [a, 0, 0]], a * np.diag([2, 1, 1]))
    assert np.triu(twice).sum() == pytest.approx(2 * energy, rel=1e-4)
    corners = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)
    found = described("ewald", [29] * 8, a * corners, 2 * a * np.eye(3))
    assert found.shape == (8, 8)
    assert np.triu(found).sum() == pytest.approx(8 * energy, rel=1e-4)


@pytest.mark.parametrize("descriptor", sorted(CRYSTALS))
def test_matrices_of_crystals_know_symmetries(descriptor):
    """Translation, rotation, order of the atoms, and which image of an atom is in the cell."""
    numbers, positions, cell = some_crystal()
    found = described(descriptor, numbers, positions, cell)
    tolerance = {"rel": 1e-4, "abs": 5e-3}  # the Ewald sum's
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = [3, 0, 4, 1, 2]
    images = positions + np.array([[1, 0, 0], [0, -1, 0], [0, 0, 2], [0, 0, 0], [1, 1, 1]]) @ cell
    for same in (
        (numbers, positions + np.array([0.3, -1.2, 0.7]), cell),
        (numbers, positions @ rotation, cell @ rotation),
        (numbers[order], positions[order], cell),
        (numbers, images, cell),
    ):
        assert described(descriptor, *same) == pytest.approx(found, **tolerance)
    moved = positions + 0.1 * np.eye(5, 3)
    assert described(descriptor, numbers, moved, cell) != pytest.approx(found, **tolerance)


@pytest.mark.parametrize("descriptor", sorted(CRYSTALS))
def test_which_matrices_know_the_lattice_from_its_vectors(descriptor):
    """a, b, c and a, b + a, c span one lattice; the sine matrix takes them for two."""
    numbers, positions, cell = some_crystal()
    other = cell + np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]]) @ cell
    one, two = (described(descriptor, numbers, positions, c) for c in (cell, other))
    same = two == pytest.approx(one, rel=1e-4, abs=5e-3)
    assert same == (descriptor != "sine")


@pytest.mark.parametrize("power", [1, 2])
def test_distances_are_those_of_padded_matrices(power):
    rng = np.random.default_rng(0)
    sizes = np.array([3, 1, 4, 3, 6])
    values = [rng.normal(size=(n, n)) for n in sizes]
    padded = np.zeros((5, 6, 6))
    for k, matrix in enumerate(values):
        padded[k, : sizes[k], : sizes[k]] = matrix
    x = Matrices(np.concatenate([m.ravel() for m in values]), sizes)
    assert all(np.array_equal(x[k], values[k]) for k in range(5))
    y = Matrices(x.values[:10], sizes[:2])
    expected = (np.abs(padded[:, None] - padded[:2]) ** power).sum((2, 3))
    assert distances(power, x, y) == pytest.approx(expected)


@pytest.fixture
def crystal_run(tmp_path):
    """Settings of a kernel run on strained caesium chlorides and single atoms in cells."""
    rng = np.random.default_rng(0)
    structures = []
    for k in range(60):
        a = rng.uniform(3.5, 5.0)
        one = k % 3 == 0
        numbers = [29] if one else [17, 55]
        positions = np.array([[0, 0, 0]] if one else [[0, 0, 0], [a / 2] * 3])
        values = {"energy": (a - 4.2) ** 2 + one}
        structures.append(Structure(str(k), numbers, positions, values, cell=a * np.eye(3)))
    path, split = tmp_path / "crystals.h5", tmp_path / "crystals.npz"
    properties = {"energy": Property("eV", "formation energy")}
    write_store(path, structures, properties, name="crystals", cutoff=6.0)
    store = Store(path)
    save_split(split, store, make_split(store, n_train=30, n_validation=15, seed=0))
    run = {"dataset": "crystals", "data": str(path), "split": str(split), "target": "energy"}
    return run | {"method": "kernel_ridge"}


@pytest.mark.parametrize("descriptor", sorted(CRYSTALS))
def test_kernels_of_crystals_learn(crystal_run, tmp_path, descriptor):
    model = {"descriptor": descriptor, "readout": "mean"}
    fit(make_spec(crystal_run | {"model": model}), tmp_path / "kernel")
    fit(
        make_spec(crystal_run | {"method": "mean", "model": {"readout": "mean"}}), tmp_path / "mean"
    )
    errors = [
        evaluate(tmp_path / name)["parts"]["test"]["energy"]["mae"] for name in ("kernel", "mean")
    ]
    assert errors[0] < 0.6 * errors[1]


def test_kernels_refuse_what_a_descriptor_is_not_for(
    crystal_run, kernel_run, toy, tmp_path, monkeypatch
):
    with pytest.raises(ConfigError, match="no descriptor 'cosine'; did you mean 'sine'"):
        check_method("kernel_ridge", {"descriptor": "cosine"})
    with pytest.raises(DataError, match="crystals.h5: the descriptor coulomb takes molecules only"):
        fit(make_spec(crystal_run), tmp_path / "run")
    sine = {"model": {"descriptor": "sine"}}
    with pytest.raises(DataError, match="toy.h5: the descriptor sine takes crystals only"):
        fit(make_spec(kernel_run | sine), tmp_path / "run")
    monkeypatch.setattr("schnet.methods.kernel_ridge.ATOMS", 1)
    with pytest.raises(ConfigError, match="sine matrices of 45 structures .* take 1.*e-06 GB"):
        fit(make_spec(crystal_run | sine), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "dscribe", None)
    with pytest.raises(SchNetError, match="pip install dscribe"):
        fit(make_spec(crystal_run | {"model": {"descriptor": "ewald"}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(make_spec(crystal_run | sine), tmp_path / "run")  # needs no dscribe
    predictor = load_predictor(tmp_path / "run", "kernel_ridge")
    with pytest.raises(DataError, match="takes crystals only"):
        predictor.predict(molecules_of(toy[0], np.arange(3)), False)


def test_memory_of_a_kernel_covers_its_descriptors(crystal_run):
    """Those of 1,000 structures of 100 atoms, 80 MB, beside matrices of 700² pairs."""
    sizes = {"n_train": 700, "n_validation": 300}
    pairs = 8e-6 * 700**2
    assert memory_mb(make_spec(crystal_run | sizes)) == pytest.approx(80 + 7 * pairs, abs=1)


# ---- molecules -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
def test_kernel_predictions_by_numpy(kernel_run, toy, tmp_path, kernel):
    """The grid has one point; everything from the molecules to the predictions is done again."""
    store, split = toy
    model = {"kernel": kernel, "gamma": 0.5, "alpha": 1e-4, "readout": "sum"}
    fit(make_spec(kernel_run | {"model": model}), tmp_path / "run")
    n_max = int(np.diff(store.offsets).max())
    with np.load(split) as f:
        train, test = f["indices/train"], f["indices/test"]

    def descriptor(index):
        s = store.structure(int(index))
        padded = np.zeros((n_max, n_max))
        n = len(s.atomic_numbers)
        padded[:n, :n] = coulomb_matrix(s.atomic_numbers.astype(float), s.positions)
        return padded.ravel()

    x, x_test = (np.stack([descriptor(k) for k in part]) for part in (train, test))
    with store.open() as h5:
        energy = h5["properties/energy"][:]
    counts = np.diff(store.offsets)
    mean = (energy[train] / counts[train]).mean()
    power = 1 if kernel == "laplacian" else 2

    def distances(a, b):
        return (np.abs(a[:, None] - b) ** power).sum(2)

    median = np.median(distances(x, x))
    similar = np.exp(-0.5 / median * distances(x, x))
    y = energy[train] - counts[train] * mean
    coefficients = np.linalg.solve(similar + 1e-4 * np.eye(len(x)), y)
    expected = np.exp(-0.5 / median * distances(x_test, x)) @ coefficients + counts[test] * mean
    predictor = load_predictor(tmp_path / "run", "kernel_ridge")
    values, forces = predictor.predict(molecules_of(store, test), False)
    assert forces is None
    assert values == pytest.approx(expected, abs=1e-6)


def test_kernel_hyperparameters_are_chosen_on_the_validation_set(kernel_run, toy, tmp_path):
    """The fit with the whole grid is the best of the fits with its points."""
    store, split = toy
    with np.load(split) as f:
        data = molecules_of(store, f["indices/validation"])
    true = data.properties["energy"].numpy()

    def error(name, model):
        fit(make_spec(kernel_run | {"model": model}), tmp_path / name)
        predicted, _ = load_predictor(tmp_path / name, "kernel_ridge").predict(data, False)
        return np.abs(predicted - true).mean()

    single = {
        (gamma, alpha): error(f"{gamma} {alpha}", {"gamma": gamma, "alpha": alpha})
        for gamma in (0.1, 1.0)
        for alpha in (1e-6, 1e-3)
    }
    assert len(set(single.values())) == 4
    assert error("grid", kernel_run["model"]) == min(single.values())
    result = read_yaml(tmp_path / "grid" / "run.yaml")["result"]
    assert result["best_validation_error"] == pytest.approx(min(single.values()))
    assert result["chosen"]["alpha"] == min(single, key=single.get)[1]


def test_kernel_learns_and_is_evaluated_like_any_other(kernel_run, tmp_path):
    kernel, mean = tmp_path / "kernel", tmp_path / "mean"
    fit(make_spec(kernel_run | {"model": {}}), kernel)
    fit(make_spec(kernel_run | {"method": "mean", "model": {}}), mean)
    errors = []
    for folder in (kernel, mean):
        metrics = evaluate(folder)
        assert metrics == read_json(folder / "metrics.json")
        assert (folder / "predictions.h5").exists() and not (folder / "history.csv").exists()
        assert set(metrics["parts"]["test"]) == {"energy"} and metrics["alternatives"] == {}
        errors.append(metrics["parts"]["test"]["energy"]["mae"])
    assert errors[0] < 0.6 * errors[1]
    about = read_yaml(kernel / "run.yaml")
    assert about["result"]["n_train"] == about["result"]["parameters"] == 80
    # settings of gradient steps mean nothing here
    assert about["run"]["method"] == "kernel_ridge" and "learning_rate" not in about["run"]


def test_the_mean_is_a_network_before_its_first_step(tmp_path):
    """Per atom after the references are removed; or per structure."""
    rng = np.random.default_rng(0)
    references = np.zeros(100)
    references[[1, 6, 7, 8]] = -13.6, -1030.0, -1485.0, -2042.0

    def structures():
        for k in range(40):
            z, r = random_molecule(rng, int(rng.integers(3, 8)))
            yield Structure(str(k), z, r, {"U0": references[z].sum() - 4.5 * len(z)})

    write_store(
        tmp_path / "t.h5",
        structures(),
        {"U0": Property("eV", "total energy", kind="energy")},
        name="t",
        atomrefs={"U0": references},
    )
    store = Store(tmp_path / "t.h5")
    save_split(tmp_path / "s.npz", store, make_split(store, n_train=20, n_validation=5, seed=0))
    run = {
        "dataset": "t",
        "data": str(store.path),
        "split": str(tmp_path / "s.npz"),
        "target": "U0",
        "method": "mean",
    }
    fit(make_spec(run), tmp_path / "sum")
    assert evaluate(tmp_path / "sum")["parts"]["test"]["U0"]["mae"] < 1e-9
    fit(make_spec(run | {"model": {"readout": "mean"}}), tmp_path / "mean")
    with np.load(tmp_path / "s.npz") as f, store.open() as h5:
        expected = h5["properties/U0"][:][f["indices/train"]].mean()
        test = load(store, f["indices/test"], ["U0"])
    values, _ = load_predictor(tmp_path / "mean", "mean").predict(test, False)
    assert values == pytest.approx(np.full(len(test), expected))


def test_kernel_takes_neither_forces_nor_everything(kernel_run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="energies only"):
        fit(make_spec(kernel_run | {"forces": "forces"}), tmp_path / "run")
    monkeypatch.setattr("schnet.methods.kernel_ridge.LARGEST", 79)
    with pytest.raises(ConfigError, match="80 training structures .* 79 at most"):
        fit(make_spec(kernel_run), tmp_path / "run")
    monkeypatch.undo()
    # seven matrices of 80 x 80 numbers
    monkeypatch.setattr("resource.getrlimit", lambda _: (300_000, 300_000))
    with pytest.raises(ConfigError, match=r"take 0\.000358 GB; here a process may have 0\.0003 GB"):
        fit(make_spec(kernel_run), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fitted_models_are_plain_arrays(kernel_run, tmp_path):
    """No pickle; another method's file, a damaged and a missing one are refused."""
    fit(make_spec(kernel_run), tmp_path)
    file = tmp_path / "model.pt"
    content = torch.load(file, weights_only=True)
    assert json.loads(content["run"])["target"] == "energy"
    with pytest.raises(ModelError, match="not a model of the method mean"):
        load_predictor(tmp_path, "mean")
    with pytest.raises(ModelError, match="is a model of the method kernel_ridge; here networks"):
        load_model(file)
    file.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="not a model file"):
        load_predictor(tmp_path, "kernel_ridge")
    file.unlink()
    with pytest.raises(ModelError, match="no such model file"):
        load_predictor(tmp_path, "kernel_ridge")


def test_a_kernel_run_verifies_by_a_new_fit(kernel_run, tmp_path, capsys):
    fit(make_spec(kernel_run), tmp_path)
    evaluate(tmp_path)
    assert verify(tmp_path) and "refit" in capsys.readouterr().out
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    content["arrays"]["coefficients"] *= 1.1
    torch.save(content, tmp_path / "model.pt")
    assert not verify(tmp_path)
    # without the model the new fit is compared with what the run has of the old one
    (tmp_path / "model.pt").unlink()
    capsys.readouterr()
    assert verify(tmp_path) and "predictions 0.0e+00" in capsys.readouterr().out
    (tmp_path / "predictions.h5").unlink()
    assert verify(tmp_path) and "named structures 0.0e+00" in capsys.readouterr().out
    metrics = read_json(tmp_path / "metrics.json")
    metrics["parts"]["test"]["energy"]["largest"][0]["error"] *= 1.1
    write_json(tmp_path / "metrics.json", metrics)
    assert not verify(tmp_path)


def test_larger_molecules_than_the_data_set_has(kernel_run, tmp_path):
    """They are compared as if those of the data set had been padded further.

    So do files of earlier versions, which hold the padding.
    """
    fit(make_spec(kernel_run), tmp_path / "run")
    larger = molecules_of(write_molecules(tmp_path / "larger.h5", 5, atoms=(12, 13)), np.arange(5))
    expected, _ = load_predictor(tmp_path / "run", "kernel_ridge").predict(larger, False)
    file = tmp_path / "run" / "model.pt"
    content = torch.load(file, weights_only=True)
    arrays = content["arrays"]
    training = Matrices(arrays["descriptors"].numpy(), arrays.pop("sizes").numpy())
    n = training.sizes.max()
    padded = np.zeros((len(training), n, n))
    for k, size in enumerate(training.sizes):
        padded[k, :size, :size] = training[k]
    arrays["descriptors"] = torch.tensor(padded.reshape(len(training), -1))
    del arrays["descriptor"]
    torch.save(content, file)
    found, _ = load_predictor(tmp_path / "run", "kernel_ridge").predict(larger, False)
    assert found == pytest.approx(expected)


# ---- sGDML ---------------------------------------------------------------------------------------
def morse(positions, numbers):
    """Energy and forces of all pairs in Morse potentials: smooth, and alike for like atoms."""
    r = torch.tensor(positions, dtype=torch.float64, requires_grad=True)
    z = torch.tensor(numbers, dtype=torch.float64)
    i, j = torch.triu_indices(len(r), len(r), 1)
    d = (r[i] - r[j]).norm(dim=1)
    energy = ((z[i] * z[j]) ** 0.5 * (1 - torch.exp(-(d - 1.2))) ** 2).sum()
    (gradient,) = torch.autograd.grad(energy, r)
    return energy.item(), -gradient.numpy()


def water_frames(folder, numbers=(8, 1, 1), mixed=False):
    """60 shaken water molecules as a data set with a split, and settings of a run on them."""
    rng = np.random.default_rng(0)
    shape = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    structures = []
    for k in range(60):
        positions = shape + 0.08 * rng.normal(size=shape.shape)
        z = np.array((8, 1, 1, 1) if mixed and k % 3 == 0 else numbers)
        if len(z) == 4:
            positions = np.vstack([positions, [2.0, 2.0, 0.0]])
        energy, forces = morse(positions, z)
        properties = {"energy": energy - 5000.0, "forces": forces}
        structures.append(Structure(f"w{k}", z, positions, properties))
    kinds = {
        "energy": Property("kcal/mol", "energy", kind="energy"),
        "forces": Property("kcal/mol/Å", "forces", per_atom=True, kind="forces"),
    }
    path, split = folder / "water.h5", folder / "split.npz"
    write_store(path, structures, kinds, name="water")
    store = Store(path)
    save_split(split, store, make_split(store, n_train=40, n_validation=10, seed=0))
    run = {"dataset": "water", "data": str(path), "split": str(split), "target": "energy"}
    return store, run | {"forces": "forces", "method": "sgdml", "model": {"sigma": [2, 5]}}


def test_sgdml_learns_forces_and_knows_symmetries(tmp_path):
    pytest.importorskip("sgdml", reason="sgdml is not installed")
    store, run = water_frames(tmp_path)
    fit(make_spec(run), tmp_path / "run")
    evaluate(tmp_path / "run")
    errors = read_json(tmp_path / "run" / "metrics.json")["parts"]["test"]
    with store.open() as h5:
        size = np.abs(h5["properties/forces"][:]).mean()
        spread = h5["properties/energy"][:].std()
    assert errors["forces"]["mae"] < 0.05 * size and errors["energy"]["mae"] < 0.05 * spread
    chosen = read_yaml(tmp_path / "run" / "run.yaml")["result"]["chosen"]
    assert chosen["permutations"] == 2 and chosen["sigma"] in (2, 5)

    predictor = load_predictor(tmp_path / "run", "sgdml")
    r = store.structure(0).positions
    swapped, step = r[[0, 2, 1]], 1e-4
    move = step * np.eye(9)[4].reshape(3, 3)
    moved = np.array([r, swapped, r + move, r - move])
    frames = Structures([8, 1, 1] * 4, moved.reshape(-1, 3), [0, 3, 6, 9, 12], dtype=torch.float64)
    energies, forces = predictor.predict(frames, True)
    assert energies[1] == pytest.approx(energies[0], abs=1e-8)
    slope = (energies[2] - energies[3]) / (2 * step)
    assert forces[1, 1] == pytest.approx(-slope, rel=1e-5)

    # the width is chosen with few frames, the model made of all
    few = make_spec(run | {"model": {"sigma": [chosen["sigma"]], "search_frames": 10}})
    fit(few, tmp_path / "few")
    same, same_forces = load_predictor(tmp_path / "few", "sgdml").predict(frames, True)
    assert same == pytest.approx(energies, abs=1e-6)
    assert same_forces == pytest.approx(forces, abs=1e-6)

    model = {"sigma": 5, "symmetric": False}
    fit(make_spec(run | {"model": model}), tmp_path / "gdml")
    energies, _ = load_predictor(tmp_path / "gdml", "sgdml").predict(frames, True)
    assert abs(energies[1] - energies[0]) > 1e-6  # GDML knows no symmetry
    with pytest.raises(DataError, match="another molecule"):
        other = Structures([8, 1, 6], r, [0, 3], dtype=torch.float64)
        predictor.predict(other, True)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("sgdml", {"sigma": [20, 10]}, "ascending"),
        ("sgdml", {"sigma": [10.7, 20]}, "ascending whole numbers"),
        ("sgdml", {"sigma": "abc"}, "ascending whole numbers"),
        ("sgdml", {"sigma": [[10, 20]]}, "ascending whole numbers"),
        ("sgdml", {"sigma": True}, "ascending whole numbers"),
        ("sgdml", {"search_frames": 1}, "search_frames: 1"),
        ("sgdml", {"search_frames": 2.5}, "search_frames: 2.5 is not a whole number"),
        ("sgdml", {"memory_gb": -1}, "memory_gb: -1"),
        ("sgdml", {"memory_gb": True}, "memory_gb: True is not a number"),
        ("sgdml", {"symmetric": "no"}, "symmetric: 'no' is not true or false"),
        ("sgdml", {"regularisation": "1e-10"}, r"'1e-10' is not a number; in YAML 1\.0e-10"),
        ("kernel_ridge", {"kernel": ["laplacian"]}, "kernel: .* is not a text"),
        ("kernel_ridge", {"gamma": True}, "gamma: True is no list of positive numbers"),
        ("kernel_ridge", {"alpha": ["1e-9"]}, "no list of positive numbers"),
    ],
)
def test_hyperparameters_of_methods_are_checked(method, values, message):
    with pytest.raises(ConfigError, match=message):
        check_method(method, values)


def test_sgdml_refuses_what_it_cannot_take(tmp_path, monkeypatch):
    pytest.importorskip("sgdml", reason="sgdml is not installed")
    (tmp_path / "mixed").mkdir()
    _, mixed = water_frames(tmp_path / "mixed", mixed=True)
    with pytest.raises(DataError, match="frames of one molecule"):
        fit(make_spec(mixed), tmp_path / "run")
    _, run = water_frames(tmp_path)
    with pytest.raises(ConfigError, match="must name the forces"):
        fit(make_spec(run | {"forces": None}), tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"cannot fit 40 frames of 3 atoms within memory_gb = 1e-12"
    ):
        fit(make_spec(run | {"model": {"memory_gb": 1e-12}}), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "sgdml.train", None)
    with pytest.raises(SchNetError, match="pip install sgdml"):
        fit(make_spec(run), tmp_path / "run")
