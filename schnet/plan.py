"""What a scale costs, before anything is started: runs, steps, hours and disk per table."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from schnet.files import read_yaml
from schnet.project import Project

STEPS = 20  # timed steps of a measurement, after 5 to warm up


def _key(run: dict) -> tuple:
    """What decides the time of a step."""
    model = run["model"]
    return run["dataset"], model.get("n_interactions", 6), model.get("n_features", 64), bool(run.get("forces"))


def finished(results: Path) -> dict[tuple, float]:
    """Median seconds per step of finished runs, by what decides them."""
    found: dict[tuple, list[float]] = {}
    for path in sorted(Path(results).glob("*/runs/**/run.yaml")):
        about = read_yaml(path)
        if about["result"]["steps"] >= 1000:  # shorter runs are mostly start-up and validation
            found.setdefault(_key(about["run"]), []).append(about["result"]["training_seconds"] / about["result"]["steps"])
    return {k: statistics.median(v) for k, v in found.items()}


def measure(run: dict, atoms: int, threads: int, device: str) -> float:
    """Seconds per training step on this machine, with made-up structures of the data set's mean size."""
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Property, Store, Structure, write_store
    from schnet.training.loop import Trainer
    from schnet.training.spec import make_spec

    rng = np.random.default_rng(0)
    side = int(np.ceil(atoms ** (1 / 3)))
    cutoff = run["model"].get("cutoff")
    spacing = 2.6 if cutoff else 1.3  # Å: densities of crystals and of molecules
    sites = np.array([[x, y, z] for x in range(side) for y in range(side) for z in range(side)], float) * spacing

    def structures():
        for k in range(96):
            r = sites[:atoms] + rng.normal(0, 0.1, (atoms, 3))
            values = {run["target"]: rng.normal(), **({run["forces"]: rng.normal(size=(atoms, 3))} if run["forces"] else {})}
            yield Structure(str(k), rng.choice([1, 6, 7, 8], atoms), r, values, cell=np.eye(3) * side * spacing if cutoff else None)

    properties = {run["target"]: Property("eV", "target")} | ({run["forces"]: Property("eV/Å", "forces", per_atom=True)} if run["forces"] else {})
    with tempfile.TemporaryDirectory() as folder:
        data, split = Path(folder) / "data.h5", Path(folder) / "split.npz"
        write_store(data, structures(), properties, name="plan", cutoff=cutoff)
        store = Store(data)
        save_split(split, store, make_split(store, n_train=80, n_validation=8, seed=0))
        trainer = Trainer(make_spec(run | {"data": str(data), "split": str(split)}), folder, threads=threads, device=device)
        for _ in range(5):
            trainer.train_step()
        begin = time.perf_counter()
        for _ in range(STEPS):
            trainer.train_step()
        float(trainer.recent[-1])  # waits for a GPU
        return (time.perf_counter() - begin) / STEPS


def _disk(project: Project, run: dict, n_test: int, parameters: int) -> float:
    """Bytes a run leaves behind: weights (twice with an average) and every test prediction."""
    source = project.sources[run["dataset"]]
    per_structure = 24 + (24 * source.get("atoms", 20) if run["forces"] or run["dataset"].startswith(("md17", "c20", "iso17")) else 0)
    return 4 * parameters * (2 if run["ema"] else 1) + n_test * per_structure


def show(project: Project, *, measured: bool = False, threads: int = 1, device: str = "cpu"):
    """Print runs, steps, hours and disk per table. Seconds per step come from finished runs or, with
    ``measured``, from short trainings on made-up structures here; what has neither is named, not guessed."""
    known = finished(Path(project.config["results_dir"]))
    origin = dict.fromkeys(known, "finished runs")
    scale = project.config["scale"]
    rows, seen = [], set()
    for name in project.experiments:
        runs = [r for r in project.runs_of(name) if r not in seen]
        seen.update(runs)
        hours, unknown, disk = 0.0, set(), 0.0
        for run in runs:
            spec = project.runs[run]
            key = _key(spec)
            source = project.sources[spec["dataset"]]
            if key not in known and measured:
                known[key], origin[key] = measure(spec, source.get("atoms", 20), threads, device), f"measured here, {device}, {threads} threads"
            if key in known:
                hours += known[key] * spec["steps"] / 3600
            else:
                unknown.add(key)
            model = spec["model"]
            t, f = model.get("n_interactions", 6), model.get("n_features", 64)
            parameters = 100 * f + t * (4 * f * f + int(model.get("r_max", 20.0) / 0.1) * f + 4 * f) + f * f // 2 + f + 1
            split = project.splits[spec["split"].split("/splits/")[1]]
            n_test = max(0, source.get("structures", 0) - split["n_train"] - split["n_validation"]) if scale != "demo" else 0
            disk += _disk(project, spec, n_test, parameters)
        rows.append((name, len(runs), sum(project.runs[r]["steps"] for r in runs), hours, disk, unknown))
    print(f"scale {scale}: {len(project.runs)} runs; runs shared between tables are counted once, where they occur first")
    print(f"{'experiment':14} {'runs':>5} {'steps':>15} {'hours':>9} {'disk / GB':>10}")
    for name, count, steps, hours, disk, unknown in rows:
        note = f"  + {len(unknown)} kinds of run without a measurement (--measure)" if unknown else ""
        print(f"{name:14} {count:5} {steps:15,} {hours:9.2f} {disk / 1e9:10.2f}{note}")
    print(f"{'all':14} {len(project.runs):5} {sum(r[2] for r in rows):15,} {sum(r[3] for r in rows):9.2f} {sum(r[4] for r in rows) / 1e9:10.2f}")
    print("hours: of one training after the other on the hardware of the measurement (training only; validation adds a few per cent)")
    print("seconds per step:")
    for key in sorted({_key(r) for r in project.runs.values()} & set(known)):
        dataset, t, f, forces = key
        print(f"  {dataset:22} T={t} F={f:3} {'energy+forces' if forces else 'one property':13} {known[key]:.5f} s ({origin[key]})")
