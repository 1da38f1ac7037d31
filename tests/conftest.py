import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from schnet.data.splits import make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.files import read_yaml, write_yaml

ROOT = Path(__file__).resolve().parent.parent


CLUSTERS = 3  # of SLURM, beside each other


def pytest_collection_modifyitems(items):
    """SLURM first: what takes longest."""
    items.sort(key=lambda item: item.path.stem != "test_slurm")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With pytest-xdist a worker takes a whole file, whose tests share fixtures.

    Tests of SLURM wait most of their time: several workers take some, and others run beside them.
    """
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        clusters: dict[str, int] = {}

        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            if not file.endswith("test_slurm.py"):
                return file
            return f"{file} {self.clusters.setdefault(nodeid, len(self.clusters) % CLUSTERS)}"

    return Files(config, log)


@pytest.fixture(scope="session")
def mirror():
    """Folder with upstream files, or slices of them: the environment variable SCHNET_MIRROR."""
    folder = os.environ.get("SCHNET_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SCHNET_MIRROR does not name a folder with upstream files")
    return Path(folder).resolve()


def copy_workflow(folder):
    """The workflow without results, so that the tests never touch those of the user."""
    folder.mkdir(exist_ok=True)
    for name in ("Snakefile", "config.yaml", "workflow", "slurm", "profiles"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder)
    return folder


@pytest.fixture
def workflow(tmp_path):
    """A copy of the workflow that the test may change."""
    return copy_workflow(tmp_path / "checkout")


def copy_small_workflow(folder):
    """The same with SchNet alone in Table II, whose runs are then few and alike."""
    copy_workflow(folder)
    path = folder / "workflow" / "experiments" / "table_2.yaml"
    experiment = read_yaml(path)
    del experiment["claims"]  # on the others
    experiment["rows"] = [row for row in experiment["rows"] if row["key"] == "schnet"]
    write_yaml(path, experiment)
    return folder


def schnet(*args, cwd=ROOT, **environment):
    """`schnet …` as a process of its own."""
    command = [sys.executable, "-m", "schnet", *map(str, args)]
    environment = os.environ | environment
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def snakemake(*args, cwd):
    """`snakemake --cores 2 …` as a process of its own."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def snapshot(folder, *names):
    """Content of every file below a folder (with one of the names), by path."""
    files = (f for f in folder.rglob("*") if f.is_file() and (not names or f.name in names))
    return {f: f.read_bytes() for f in files}


def random_molecule(rng, n, spacing=1.3):
    """n atoms on a jittered grid: no two closer than about 0.8 Å."""
    grid = (
        np.array([[x, y, z] for x in range(4) for y in range(4) for z in range(4)], float) * spacing
    )
    return rng.choice([1, 6, 7, 8], n), grid[rng.permutation(len(grid))[:n]] + rng.normal(
        0, 0.1, (n, 3)
    )


def spring_energy(r):
    """A smooth pair energy and its forces: sum of (d - 1.5)^2 exp(-d / 2)."""
    d = r[:, None] - r
    n = np.linalg.norm(d, axis=2)
    np.fill_diagonal(n, 1.0)
    pair = (n - 1.5) ** 2 * np.exp(-n / 2)
    slope = (2 * (n - 1.5) - 0.5 * (n - 1.5) ** 2) * np.exp(-n / 2)
    np.fill_diagonal(pair, 0)
    np.fill_diagonal(slope, 0)
    return pair.sum() / 2, -(slope / n)[:, :, None].repeat(3, 2).__mul__(d).sum(1)


def write_molecules(path, count=120, seed=0, atoms=(4, 9), groups=1, name="toy"):
    rng = np.random.default_rng(seed)

    def structures():
        for k in range(count):
            z, r = random_molecule(rng, int(rng.integers(*atoms)))
            e, f = spring_energy(r)
            yield Structure(f"m{k + 1}", z, r, {"energy": e, "forces": f}, group=k % groups)

    properties = {
        "energy": Property("eV", "total energy", kind="energy"),
        "forces": Property("eV/Å", "forces on the atoms", per_atom=True, kind="forces"),
    }
    write_store(
        path, structures(), properties, name=name, group_names=[f"g{k}" for k in range(groups)]
    )
    return Store(path)


@pytest.fixture
def toy(tmp_path):
    """(store, split path) of 120 small molecules with energies and forces."""
    store = write_molecules(tmp_path / "toy.h5")
    save_split(
        tmp_path / "split.npz", store, make_split(store, n_train=80, n_validation=16, seed=0)
    )
    return store, tmp_path / "split.npz"


@pytest.fixture
def toy_run(toy, tmp_path):
    """Settings of a short run on the toy data, to be changed by the test."""
    store, split = toy
    return {
        "dataset": "toy",
        "data": str(store.path),
        "split": str(split),
        "target": "energy",
        "forces": "forces",
        "protocol": "short",
        "model": {"n_interactions": 2, "n_features": 16},
        "steps": 60,
        "validation_interval": 10,
        "checkpoint_interval": 7,
        "batch_size": 8,
    }


def random_model(seed=0, scale=1.3, **hyperparameters):
    """A SchNet with all parameters random (a fresh one predicts zero)."""
    from schnet.models.schnet import Hyperparameters, SchNet

    torch.manual_seed(seed)
    model = SchNet(Hyperparameters(**{"n_interactions": 2, "n_features": 32, **hyperparameters}))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.set_offsets(scale=scale, mean=0.7)
    return model


def committed(dataset):
    """The committed model of a molecule."""
    runs = ROOT / "results" / "replication" / "small" / "runs"
    return next((runs / dataset / "energy+forces").glob("*/n1000/rep0/model.pt"))


@pytest.fixture(scope="session")
def model_file():
    """The committed model of ethanol."""
    return committed("md17_ethanol")


@pytest.fixture(scope="module")
def ethanol(model_file):
    """Ethanol at the minimum of its committed model."""
    from ase.build import molecule

    from schnet.simulation.relax import relax

    atoms = relax(molecule("CH3CH2OH"), model_file, fmax=1e-4)
    atoms.calc = None
    return atoms
