"""Configuration, DAG, tables and the command line as a user meets them."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, random_model, write_molecules

from schnet import tables
from schnet.compare import compare
from schnet.errors import ConfigError, SchNetError
from schnet.files import write_json, write_yaml
from schnet.models import save_model
from schnet.project import load_experiments, load_project
from schnet.units import factor

TARGETS = [
    "table_1",
    "table_2",
    "table_3",
    "table_4",
    "table_4_larger",
    "table_5",
    "table_iso17",
    "figure_3",
    "figure_4",
    "figure_9",
    "figure_10",
    "all",
]


def schnet(*args, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, "-m", "schnet.cli", *map(str, args)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )


def snakemake(*args, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "snakemake", "--cores", "2", *map(str, args)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the workflow without results, so that the tests never touch those of the user."""
    for name in ("Snakefile", "config.yaml", "workflow", "schnet", "slurm"):
        source = ROOT / name
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")) if source.is_dir() else shutil.copy(source, tmp_path)
    return tmp_path


# ---- configuration -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": "demo", "mirorr": "x"}, "unknown key 'mirorr'; did you mean 'mirror'"),
        ({"scale": "dmo"}, "no scale 'dmo'; did you mean 'demo'"),
        ({"scale": "demo", "protocol": "papr"}, "protocol: 'papr' is none of .*did you mean 'paper'"),
        ({"scale": "demo", "run": {"batchsize": 3}}, "unknown key 'batchsize'; did you mean 'batch_size'"),
        ({"scale": "demo", "steps": 0}, "steps: 0 is less than"),
    ],
)
def test_typos_give_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_project(values)
    assert "\n" not in str(error.value) and "config.yaml" in str(error.value)


def test_typo_in_an_experiment(checkout):
    file = checkout / "workflow" / "experiments" / "table_3.yaml"
    file.write_text(file.read_text().replace("row_title:", "row_titel:"))
    with pytest.raises(ConfigError, match=r"table_3.yaml: unknown key 'row_titel'; did you mean 'row_title'"):
        load_experiments(checkout)


@pytest.mark.parametrize("scale", ["demo", "small", "paper"])
def test_runs_are_those_of_the_paper(scale):
    project = load_project({"scale": scale})
    runs = {name: project.runs_of(name) for name in project.experiments}
    repeats = min(3, project.scale["repeats"])
    assert len([r for r in runs["table_1"] if "dipole" not in r]) == 12 * repeats
    assert set(runs["table_3"]) == set(runs["table_4"])
    by_frame = [r for r in runs["table_5"] if "by_group" not in r]
    assert len(by_frame) == 7
    assert set(runs["figure_3"]) & set(runs["table_1"])  # U0 with T = 6 at the largest N
    if scale == "paper":
        assert len(runs["table_3"]) == 32 and len(runs["table_2"]) == 6 and len(runs["figure_3"]) == 12
        spec = project.runs["qm9/U0/schnet-T6-F64/n110000/rep2"]
        assert (spec["steps"], spec["batch_size"], spec["seed"], spec["schedule"], spec["loss"], spec["ema"]) == (
            10_000_000,
            32,
            2,
            "exponential",
            "paper",
            0.0,
        )
        assert project.runs["qm9/homo/schnet-T6-F64/n110000/rep0"]["model"]["readout"] == "mean"
        assert project.runs["materials_project/formation_energy_per_atom/schnet-T6-F64/n60000/rep0"]["model"]["cutoff"] == 5.0
        assert project.runs["md17_aspirin/energy+forces/schnet-T3-F64-rho0.01/n50000/rep0"]["rho"] == 0.01


def test_printed_numbers_are_the_papers():
    t1, t3, t4, t5 = (tables.published(f"table_{k}.csv") for k in (1, 3, 4, 5))
    assert t1["r2", "schnet"] == (0.073, 0.002, "Bohr^2", "0.073 ± 0.002") and t1["gap", "schnet"][3] == "0.063 ± 0.000"
    assert t3["ethanol", "both_1000"][0] == 0.08 and t3["aspirin", "energy_1000"][0] == 4.20 and t3["benzene", "dtnn"][0] == 0.04
    assert t4["ethanol", "both_50000"][0] == 0.05 and t4["aspirin", "gdml"][0] == 0.99
    assert t5["T6_F128_rho0", "forces"][0] == 0.058 and t5["T6_F128_rho0.01", "energy"][0] == 0.1002


def test_units_of_table_1():
    assert 0.073 * factor("Å^2", "Bohr^2") == pytest.approx(0.26, abs=0.002)
    assert factor("kcal/mol", "eV") == 0.0433641
    with pytest.raises(ValueError, match="cannot convert"):
        factor("eV", "Debye")


# ---- the DAG -------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", ["demo", "small", "paper"])
def test_dry_run_of_every_named_target(checkout, scale):
    done = snakemake("-n", "--quiet", "all", "--config", f"scale={scale}", "--", *TARGETS, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (checkout / "results").exists() and not (checkout / "data").exists()


def test_single_file_target_and_clear_error(checkout):
    assert snakemake("-n", "--quiet", "all", "--", "results/demo/figures/figure_3.png", cwd=checkout).returncode == 0
    done = snakemake("-n", "--config", "scael=small", cwd=checkout)
    assert done.returncode != 0 and "did you mean 'scale'" in done.stdout + done.stderr


def test_files_missing_in_the_mirror_leave_their_cells_empty(tmp_path):
    (tmp_path / "md17").mkdir()
    (tmp_path / "md17" / "md17_ethanol.npz").write_bytes(b"")
    project = load_project({"scale": "small", "mirror": str(tmp_path)})
    assert {r.split("/")[0] for r in project.runs} == {"md17_ethanol"}
    cells = {(c.row, c.column): c for c in project.cells["table_3"]}
    assert "not in the mirror" in cells["aspirin", "both_1000"].missing and not cells["ethanol", "both_1000"].missing


# ---- tables --------------------------------------------------------------------------------------
def write_run(folder, metrics, run, **alternatives):
    write_json(folder / "metrics.json", {"target": run["target"], "weights": "raw", "parts": {"test": metrics}, "alternatives": alternatives})
    result = {"steps": 10, "n_train": 5, "training_seconds": 1.0, "peak_memory_mb": 1, "engine": "reference", "best_step": 10}
    provenance = {"code": {"engine": "old"}, "gpu": None, "cpu": "c"}
    write_yaml(
        folder / "run.yaml",
        {
            "run": run,
            "result": result,
            "data": {"sources": [{"file": "f", "url": "u", "checksum_from": "mirror"}], "notes": {}, "digest": ""},
            "provenance": provenance,
        },
    )


def test_table_with_means_errors_units_and_missing_runs(tmp_path):
    project = load_project({"scale": "paper", "results_dir": str(tmp_path)})
    for repeat, mae in enumerate((0.2, 0.4)):
        run = f"qm9/zpve/schnet-T6-F64/n110000/rep{repeat}"
        write_run(project.results / "runs" / run, {"zpve": {"mae": mae, "unit": "meV"}}, project.runs[run])
    run = "qm9/r2/schnet-T6-F64/n110000/rep0"
    write_run(project.results / "runs" / run, {"r2": {"mae": 1.0, "unit": "Bohr^2"}}, project.runs[run])
    tables.render(project, "table_1", tmp_path / "table_1")
    with open(tmp_path / "table_1.csv", newline="") as f:
        cells = {(r["row"], r["column"]): r for r in csv.DictReader(f)}
    zpve = cells["zpve", "schnet"]
    assert float(zpve["measured"]) == pytest.approx(0.3) and float(zpve["standard_error"]) == pytest.approx(0.1)
    assert float(zpve["difference"]) == pytest.approx(0.3 - 1.7) and zpve["missing"] == "2 of 3 runs there"
    assert cells["homo", "schnet"]["measured"] == "" and cells["homo", "schnet"]["printed"] == "0.041"
    assert cells["homo", "enn_s2s"]["quoted"] == "True"
    text = (tmp_path / "table_1.md").read_text()
    assert "0.28" in text and "Å^2" in text  # 1 Bohr² in Å²
    assert (
        "changed since 3 of 3 runs were trained: data, engine, models, training" in text
        and "Missing, 2 of 3 runs there: zpve/schnet" in text
        and "mirror with checksums of its own" in text
    )
    latex = (tmp_path / "table_1.tex").read_text()
    assert "\\toprule" in latex and not re.search("[εΔμα⟨⟩±]", latex)
    assert run in (tmp_path / "table_1.html").read_text()


def test_demo_tables_warn(tmp_path):
    project = load_project({"scale": "demo", "results_dir": str(tmp_path)})
    tables.render(project, "table_3", tmp_path / "t")
    assert "never to be compared" in (tmp_path / "t.md").read_text()


def test_compare(tmp_path):
    for folder, value in (("a", 1.0), ("b", 1.8), ("c", 2.2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table_1.csv").write_text(f"row,column,measured\nx,y,{value}\nz,y,\n")
    compare(tmp_path / "a", tmp_path / "b", 2.0)
    with pytest.raises(SchNetError, match=r"x, y: 2\.2, was 1"):
        compare(tmp_path / "a", tmp_path / "c", 2.0)


# ---- the command line ----------------------------------------------------------------------------
def test_help_and_errors():
    assert "train" in schnet("--help").stdout
    done = schnet("data", "convert", "qm8", "x", "y.h5")
    assert done.returncode == 2 and done.stderr.strip() == "schnet: error: no data set 'qm8'; did you mean 'qm9'?"
    done = schnet("train", "absent.yaml", "--device", "cpu")
    assert done.returncode == 2 and "absent.yaml: no such file" in done.stderr and "Traceback" not in done.stderr


def test_describe_show_and_predict(tmp_path):
    from ase.build import molecule
    from ase.io import read, write

    store = write_molecules(tmp_path / "t.h5", 8)
    done = schnet("data", "describe", store.path, "-o", tmp_path / "d.png")
    assert "8 structures" in done.stdout and "kcal" not in done.stdout and (tmp_path / "d.png").stat().st_size > 5000
    assert schnet("data", "show", store.path, 3, "-o", tmp_path / "s.png").returncode == 0 and (tmp_path / "s.png").stat().st_size > 5000
    assert "it has 8" in schnet("data", "show", store.path, 99, "-o", tmp_path / "x.png").stderr
    model = random_model()
    save_model(tmp_path / "m.pt", model, target="energy", unit="eV", force_unit="eV/Å")
    write(tmp_path / "in.extxyz", [molecule("H2O"), molecule("CH4")])
    assert schnet("predict", tmp_path / "m.pt", tmp_path / "in.extxyz", "-o", tmp_path / "out.extxyz", "--device", "cpu").returncode == 0
    out = read(tmp_path / "out.extxyz", ":")
    from schnet.simulation.calculator import SchNetCalculator

    for atoms, start in zip(out, (molecule("H2O"), molecule("CH4")), strict=True):
        start.calc = SchNetCalculator(tmp_path / "m.pt")
        assert atoms.info["schnet_energy"] == pytest.approx(start.get_potential_energy(), abs=1e-5)
        assert atoms.arrays["schnet_forces"] == pytest.approx(start.get_forces(), abs=1e-5)


def test_a_run_from_raw_file_to_metrics_by_hand(tmp_path):
    """Each arrow of the workflow is one command."""
    rng = np.random.default_rng(0)
    z, r = np.array([8, 1, 1]), np.array([[0, 0, 0.1], [0, 0.76, -0.48], [0, -0.76, -0.48]]) + rng.normal(0, 0.05, (80, 3, 3))
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "md17_ethanol.npz", z=z, R=r, E=(r**2).sum((1, 2)), F=-2 * r)
    for command in (
        ("data", "convert", "md17_ethanol", tmp_path / "raw", tmp_path / "d.h5"),
        ("split", tmp_path / "d.h5", tmp_path / "s.npz", "--n-train", 40, "--n-validation", 10),
    ):
        done = schnet(*command)
        assert done.returncode == 0, done.stderr
    run = {
        "dataset": "md17_ethanol",
        "data": str(tmp_path / "d.h5"),
        "split": str(tmp_path / "s.npz"),
        "target": "energy",
        "steps": 20,
        "validation_interval": 10,
        "model": {"n_interactions": 1, "n_features": 16},
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text(yaml.safe_dump(run))
    assert schnet("train", tmp_path / "run" / "settings.yaml", "--device", "cpu").returncode == 0
    done = schnet("evaluate", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 0 and "test: energy MAE" in done.stdout
    # the run file of a finished run is itself a run
    assert schnet("train", tmp_path / "run" / "run.yaml", "-o", tmp_path / "again", "--device", "cpu").returncode == 0
    assert (tmp_path / "run" / "model.pt").read_bytes() == (tmp_path / "again" / "model.pt").read_bytes()


def test_small_sizes_beyond_the_data_are_refused(tmp_path):
    write_molecules(tmp_path / "t.h5", 8)
    done = schnet("split", tmp_path / "t.h5", tmp_path / "s.npz", "--n-train", 100, "--n-validation", 1)
    assert done.returncode == 2 and "the data set has 8" in done.stderr and not (tmp_path / "s.npz").exists()


# ---- real files, where there are any -------------------------------------------------------------
@pytest.mark.parametrize(("name", "energy"), [("force_model", -477075.847), ("energy_model", -477076.883)])
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
    assert atoms.get_potential_energy() / 0.0433641 == pytest.approx(energy, abs=0.02)
    assert atoms.get_forces() / 0.0433641 == pytest.approx(f.numpy(), abs=0.005)


def test_damaged_checkpoint_folder(mirror, tmp_path):
    folder = tmp_path / "force_model"
    shutil.copytree(mirror / "c20" / "models" / "c20" / "force_model", folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    index = folder / "validation" / "best_model.index"
    content = index.read_bytes()
    index.write_bytes(content[:-3])
    done = schnet("import-tf", folder, tmp_path / "m.pt")
    assert done.returncode == 2 and "best_model.index" in done.stderr and not (tmp_path / "m.pt").exists()
    index.write_bytes(content)
    (folder / "args.npy").unlink()
    assert "args.npy: missing" in schnet("import-tf", folder, tmp_path / "m.pt").stderr


def test_real_slices_convert(mirror, tmp_path):
    from schnet.data import md17, qm9
    from schnet.data.store import Store

    qm9.convert(mirror / "qm9", tmp_path / "qm9.h5", name="qm9", about={})
    store = Store(tmp_path / "qm9.h5")
    assert store.notes["uncharacterized molecules listed upstream"] == 3054
    methane = store.structure(int(np.flatnonzero(store.ids() == "1")[0]))
    assert methane.properties["U0"] == pytest.approx(-40.47893 * 27.211386) and methane.properties["gap"] == pytest.approx(0.5048 * 27.211386)
    md17.convert(mirror / "md17", tmp_path / "e.h5", name="md17_ethanol", about={})
    assert len(Store(tmp_path / "e.h5")) > 5000


def test_workflow_on_real_slices(mirror, checkout):
    """One short run of the small scale on real ethanol, through Snakemake, from the mirror to the table."""
    done = snakemake("-n", "--quiet", "all", "--config", "scale=small", f"mirror={mirror}", "steps=30", "--", "table_3", cwd=checkout)
    assert done.returncode == 0, done.stderr
    run = "results/small/runs/md17_ethanol/energy+forces/schnet-T3-F64-rho0.01-short/n1000/rep0/metrics.json"
    done = snakemake("--quiet", "all", "--config", "scale=small", f"mirror={mirror}", "steps=30", "device=cpu", "--", run, cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    about = yaml.safe_load((checkout / run).with_name("run.yaml").read_text())
    assert about["result"]["steps"] == 30 and about["data"]["sources"][0]["checksum_from"] == "mirror"
    assert json.loads((checkout / run).read_text())["parts"]["test"]["energy"]["n"] == 3856


# ---- reference data ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("benzene", "C6H6"),
        ("toluene", "C7H8"),
        ("malonaldehyde", "C3H4O2"),
        ("salicylic_acid", "C7H6O3"),
        ("aspirin", "C9H8O4"),
        ("ethanol", "C2H6O"),
        ("uracil", "C4H4N2O2"),
        ("naphthalene", "C10H8"),
    ],
)
def test_made_molecules_are_what_they_are_called(name, formula):
    from schnet.reference import build, xtb

    atoms = build.named(name)
    assert atoms.get_chemical_formula(mode="hill") == formula
    graph = build.fingerprint(atoms)
    assert xtb.relax(atoms, fmax=0.05) and build.connected(atoms) and build.fingerprint(atoms) == graph


def test_made_qm9_files_pass_the_converter(tmp_path):
    from schnet.data import qm9
    from schnet.data.store import Store
    from schnet.reference import generate

    generate("qm9", "molecules", tmp_path, workers=2, molecules=8)
    notes = qm9.convert(tmp_path, tmp_path / "q.h5", name="qm9", about={})
    assert notes["uncharacterized molecules removed"] >= 1
    store = Store(tmp_path / "q.h5")
    s = store.structure(0)
    p = s.properties
    assert p["U0"] < p["U"] < p["H"] and p["G"] < p["H"] and p["gap"] == pytest.approx(p["lumo"] - p["homo"], abs=1e-4)
    assert s.atomic_numbers.tolist().count(6) == 1 and 900 < p["zpve"] < 1400 and 5 < p["Cv"] < 8  # methane: 1200 meV, 6.5 cal/mol K


def test_made_forces_are_gradients(tmp_path):
    from schnet.data import md17
    from schnet.data.store import Store
    from schnet.reference import generate

    generate("md17_ethanol", "trajectory", tmp_path, frames=4)
    md17.convert(tmp_path, tmp_path / "e.h5", name="md17_ethanol", about={})
    s = Store(tmp_path / "e.h5").structure(2)
    from ase import Atoms

    from schnet.reference.xtb import XTB

    energies = []
    for sign in (1, -1):
        atoms = Atoms(s.atomic_numbers, s.positions)
        atoms.positions[1, 1] += sign * 1e-3
        atoms.calc = XTB()
        energies.append(atoms.get_potential_energy() / 0.0433641)
    assert s.properties["forces"][1, 1] == pytest.approx(-(energies[0] - energies[1]) / 2e-3, rel=2e-3, abs=0.05)


def test_plan_counts_runs_and_measures_where_asked():
    done = schnet("plan", "--scale", "paper")
    assert done.returncode == 0 and re.search(r"table_1 +38 +380,000,000", done.stdout) and "without a measurement" in done.stdout
    from schnet.plan import measure

    run = load_project({"scale": "paper"}).runs["md17_ethanol/energy+forces/schnet-T3-F64-rho0.01/n1000/rep0"]
    assert 1e-5 < measure(run, 9, 1, "cpu") < 1
