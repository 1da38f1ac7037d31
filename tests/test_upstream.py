"""Real upstream files, where there are any: released models, slices of the data sets."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from ase import units
from conftest import ROOT, copy_workflow, schnet, snakemake

from schnet.project import load_project


@pytest.fixture
def checkout(tmp_path):
    return copy_workflow(tmp_path)


@pytest.mark.parametrize(
    ("name", "energy"), [("force_model", -477075.847), ("energy_model", -477076.883)]
)
def test_released_c20_models(mirror, tmp_path, name, energy):
    from ase.io import read

    from schnet.data.structures import from_atoms
    from schnet.models import load_model
    from schnet.simulation.calculator import SchNetCalculator

    folder = mirror / "c20" / "models" / "c20"
    done = schnet("import-tf", folder / name, tmp_path / "m.pt")
    assert done.returncode == 0 and "T=6, F=128" in done.stdout
    atoms = read(folder / "C20.xyz")
    model = load_model(tmp_path / "m.pt").double()
    batch = from_atoms([atoms], dtype=torch.float64).batch(torch.tensor([0]))
    e, f = model.energy_and_forces(batch)
    assert e.item() + model.offset(batch).item() == pytest.approx(energy, abs=0.01)
    assert f.sum(0).abs().max() < 1e-9
    for a, c in ((0, 0), (7, 2)):
        values = []
        for sign in (1, -1):
            batch2 = from_atoms([atoms], dtype=torch.float64).batch(torch.tensor([0]))
            batch2.positions[a, c] += sign * 1e-4
            values.append(model(batch2).item())
        assert f[a, c].item() == pytest.approx(-(values[0] - values[1]) / 2e-4, abs=1e-5)
    atoms.calc = SchNetCalculator(tmp_path / "m.pt")  # the engine, float32
    kcal = units.kcal / units.mol
    assert atoms.get_potential_energy() / kcal == pytest.approx(energy, abs=0.02)
    assert atoms.get_forces() / kcal == pytest.approx(f.numpy(), abs=0.005)


def test_damaged_checkpoint_folder(mirror, tmp_path):
    folder = tmp_path / "force_model"
    shutil.copytree(mirror / "c20" / "models" / "c20" / "force_model", folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    index = folder / "validation" / "best_model.index"
    content = index.read_bytes()
    index.write_bytes(content[:-3])
    done = schnet("import-tf", folder, tmp_path / "m.pt")
    assert (
        done.returncode == 2
        and "best_model.index" in done.stderr
        and not (tmp_path / "m.pt").exists()
    )
    index.write_bytes(content)
    (folder / "args.npy").unlink()
    assert "args.npy: missing" in schnet("import-tf", folder, tmp_path / "m.pt").stderr


def assert_printed_summaries(store):
    """std. MAE and logMAE printed for six models follow from their printed errors.

    With standard deviations of total energies each logMAE would be lower by 1.5. Cormorant has no
    U, H and G: the error of U0 is counted for them too.
    """
    from schnet.evaluation import deviation
    from schnet.tables import published
    from schnet.tables.derived import SUMMARIES

    printed = published(ROOT / "workflow" / "published" / "qm9_comparison.csv")
    for name in ("U", "H", "G"):
        printed[name, "cormorant"] = printed["U0", "cormorant"]
    everything = np.arange(len(store))
    spread = {}
    with store.open() as h5:
        for name in store.properties:
            values = h5[f"properties/{name}"][:]
            spread[name] = deviation(store, name, everything, values)
    for model in ("ppgn", "schnet", "physnet", "megnet", "cormorant", "dimenet"):
        ratios = np.array(
            [
                printed[name, model].converted(p.unit).number / spread[name]
                for name, p in store.properties.items()
            ]
        )
        for row, summary in SUMMARIES.items():
            assert summary.of(ratios) == pytest.approx(printed[row, model].number, abs=0.02)


def test_real_slices_convert(mirror, tmp_path):
    from schnet.data import md17, qm9
    from schnet.data.store import Store

    qm9.convert(mirror / "qm9", tmp_path / "qm9.h5", name="qm9", about={})
    store = Store(tmp_path / "qm9.h5")
    assert store.notes["uncharacterized molecules listed upstream"] == 3054
    methane = store.structure(int(np.flatnonzero(store.ids() == "1")[0]))
    assert methane.properties["U0"] == pytest.approx(-40.47893 * 27.211386) and methane.properties[
        "gap"
    ] == pytest.approx(0.5048 * 27.211386)
    assert_printed_summaries(store)
    md17.convert(mirror / "md17", tmp_path / "e.h5", name="md17_ethanol", about={})
    assert len(Store(tmp_path / "e.h5")) > 5000


def test_workflow_on_real_slices(mirror, checkout):
    """One short run of the small scale on real ethanol, from the mirror to its errors."""
    done = snakemake(
        "-n",
        "--quiet",
        "all",
        "--config",
        "scale=small",
        f"mirror={mirror}",
        "steps=30",
        "--",
        "table_3",
        cwd=checkout,
    )
    assert done.returncode == 0, done.stderr
    config = {"scale": "small", "mirror": str(mirror), "steps": 30}
    runs = load_project(config, checkout).runs_of("table_4")
    wanted = [
        run
        for run in runs
        if run.dataset == "md17_ethanol" and run.settings.forces and run.settings.method == "neural"
    ]
    run = str(wanted[0].metrics_file)
    done = snakemake(
        "--quiet",
        "all",
        "--config",
        "scale=small",
        f"mirror={mirror}",
        "steps=30",
        "device=cpu",
        "--",
        run,
        cwd=checkout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    about = yaml.safe_load((checkout / run).with_name("run.yaml").read_text())
    assert (
        about["result"]["steps"] == 30 and about["data"]["sources"][0]["checksum_from"] == "mirror"
    )
    assert json.loads((checkout / run).read_text())["parts"]["test"]["energy"]["n"] == 3856
