"""Files that were cut off, emptied or changed: one sentence each, never a traceback."""

import random

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from conftest import random_model, write_molecules

from schnet import methods
from schnet.cli import main
from schnet.data.splits import load_split, make_split, save_split, split_digest
from schnet.data.structures import from_atoms
from schnet.errors import DataError, SchNetError
from schnet.models import load_model, save_model
from schnet.record import finished_run, is_finished
from schnet.run import make_spec
from schnet.training.loop import Trainer, train

CHANGES = 30  # of a few bytes each


def damaged(content: bytes):
    """The content cut off at many places, and with a few bytes changed, the same every time."""
    rng = random.Random(0)
    n = len(content)
    for size in {0, 1, 2, 5, 10, 100, n // 4, n // 2, 3 * n // 4, n - 200, n - 22, n - 2}:
        if 0 <= size < n:
            yield content[:size]
    yield b"hello\n"
    yield bytes(n)
    for _ in range(CHANGES):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 20])):
            changed[rng.randrange(n)] = rng.randrange(256)
        yield bytes(changed)


def refused_or_read(path, *readers, most_refused=True):
    """Every damaged content of a file is read, or refused with one line that names the file."""
    content = path.read_bytes()
    n_refused = 0
    for k, damage in enumerate(damaged(content)):
        path.write_bytes(damage)
        for read in readers:
            try:
                read()
            except SchNetError as error:
                assert "\n" not in str(error), k
                assert path.name in str(error) or "model: " in str(error), k
                n_refused += 1
    path.write_bytes(content)
    assert n_refused > (20 if most_refused else 5)
    for read in readers:
        read()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(settings, folder) of a short finished run that is not evaluated."""
    folder = tmp_path_factory.mktemp("damage")
    store = write_molecules(folder / "toy.h5", 40)
    split = folder / "split.npz"
    save_split(split, store, make_split(store, n_train=24, n_validation=8, seed=0))
    settings = {
        "dataset": "toy",
        "data": str(store.path),
        "split": str(split),
        "target": "energy",
        "model": {"n_interactions": 1, "n_features": 16},
        "steps": 4,
        "validation_interval": 2,
        "batch_size": 8,
    }
    spec = make_spec(settings)
    train(spec, folder / "run", device="cpu")
    return spec, folder / "run"


def test_models(run):
    _, folder = run
    path = folder / "model.pt"

    def load():
        methods.load(folder, "neural", threads=1, device="cpu", engine="auto")

    refused_or_read(path, lambda: load_model(path), load)


def test_means(run, tmp_path):
    spec = run[0]
    keys = ("dataset", "data", "split", "target")
    mean = make_spec({key: getattr(spec, key) for key in keys} | {"method": "mean"})
    methods.fit(mean, tmp_path, threads=1, device="cpu")

    def load():
        methods.load(tmp_path, "mean", threads=1, device="cpu", engine="auto")

    refused_or_read(tmp_path / "model.pt", load)


def test_checkpoints(run, tmp_path):
    spec, folder = run
    trainer = Trainer(spec, tmp_path, device="cpu")
    path = folder / "checkpoint.pt"
    refused_or_read(path, lambda: trainer.state.restore(path, trainer.identity))


def test_splits(run):
    _, folder = run
    path = folder.parent / "split.npz"
    store = write_molecules(folder.parent / "same.h5", 40)
    refused_or_read(path, lambda: load_split(path, store), lambda: split_digest(path))
    content = path.read_bytes()
    with np.load(path) as f:
        arrays = dict(f)
    for change in ({"parts": np.array("x")}, {"parts": np.array([])}, {"indices/train": [0.5]}):
        np.savez(path, **arrays | change)
        with pytest.raises(DataError, match="not a split file"):
            split_digest(path)
    np.save(path.with_suffix(".npy"), np.arange(3))
    path.with_suffix(".npy").replace(path)
    with pytest.raises(DataError, match="not a split file"):
        load_split(path, store)
    path.write_bytes(content)


def test_run_files(run):
    spec, folder = run
    readers = (lambda: finished_run(folder), lambda: is_finished(folder, spec))
    refused_or_read(folder / "run.yaml", *readers, most_refused=False)


@pytest.fixture
def model_file(tmp_path):
    save_model(tmp_path / "model.pt", random_model(), target="energy", unit="eV")
    return tmp_path / "model.pt"


def test_structures(model_file, tmp_path, capsys):
    """Of any file: both verbs say what is wrong, and go on to work where nothing is."""
    path, out = tmp_path / "structures.xyz", tmp_path / "out.xyz"
    write(path, [Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])] * 2, format="extxyz")
    for damage in damaged(path.read_bytes()):
        path.write_bytes(damage)
        code = main(["predict", str(model_file), str(path), "-o", str(out), "--device", "cpu"])
        message = capsys.readouterr().err
        assert code == 0 or (code == 2 and message.startswith("schnet: error: "))
        assert message.count("\n") <= 1


@pytest.mark.parametrize("number", [-1, 0, 100, 118, 999])
def test_atomic_numbers_that_no_model_knows(model_file, tmp_path, capsys, number):
    path = tmp_path / "structure.xyz"
    path.write_text(f"1\nProperties=Z:I:1:pos:R:3\n{number} 0 0 0\n")
    message = f"atomic number {number}: models know elements 1–99"
    for verb in (["predict", model_file, path], ["md", path, model_file, "--steps", 1]):
        command = [str(word) for word in (*verb, "-o", tmp_path / "out.xyz", "--device", "cpu")]
        assert main(command) == 2
        assert f"{path}: structure 0: {message}" in capsys.readouterr().err
    with pytest.raises(DataError, match=message):
        load_model(model_file).check_elements(torch.tensor([number]))
    with pytest.raises(DataError, match=message):
        from_atoms([Atoms(numbers=[number], positions=[[0, 0, 0]])])


def test_a_file_without_atoms(model_file, tmp_path, capsys):
    path = tmp_path / "structure.xyz"
    path.write_text("0\n\n")
    assert main(["predict", str(model_file), str(path), "-o", str(path), "--device", "cpu"]) == 2
    assert "structure 0 has no atoms" in capsys.readouterr().err
