"""`python -m benchmarks`: time the engine beside its peers and print ratios.

Every contender gets the same weights, pairs and inputs; agreement is checked before anything is timed. The
contenders take turns (A B C A B C …), so a noisy machine disturbs them alike; medians and ratios are reported.
Crystals: the peers do not divide by the number of neighbours, so here nobody does.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk, molecule

from benchmarks.peers import PEERS, Edges
from schnet.data.structures import Structures, from_atoms
from schnet.engine import FlatParameters, ReferenceEngine, make_engine, native
from schnet.engine.inference import Predictor
from schnet.engine.table import TableEngine
from schnet.models.schnet import Hyperparameters, SchNet
from schnet.reference import build


def molecules(names, count, seed=0):
    """``count`` rattled copies of molecules, without cutoff."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        atoms = names[k % len(names)].copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        out.append(atoms)
    return from_atoms(out)


def qm9_like(count, seed=0):
    """Molecules of about 18 atoms and 9 heavy atoms."""
    rng = np.random.default_rng(seed)
    out = []
    while len(out) < count:
        atoms = molecule("CH4")
        for _ in range(40):
            if (atoms.numbers > 1).sum() >= 9:
                break
            group = str(rng.choice(["CH3", "OH", "NH2", "CH3", "CHO"]))
            atoms = build.substitute(atoms, int(rng.choice(np.flatnonzero(atoms.numbers == 1))), group)
        d = atoms.get_all_distances() + 9 * np.eye(len(atoms))
        if d.min() > 0.7:
            out.append(atoms)
    return from_atoms(out)


def crystals(count, seed=0):
    rng = np.random.default_rng(seed)
    kinds = [
        bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("Cu", "fcc", a=3.61, cubic=True), bulk("Si", "diamond", a=5.43, cubic=True),
        bulk("CsCl", "cesiumchloride", a=4.12).repeat((2, 2, 2)), bulk("MgO", "rocksalt", a=4.21, cubic=True), bulk("Fe", "bcc", a=2.87, cubic=True).repeat((2, 2, 1)),
    ]  # fmt: skip
    out = []
    for k in range(count):
        atoms = kinds[k % len(kinds)].copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        out.append(atoms)
    data = from_atoms(out, cutoff=5.0)
    data.n_neighbours = None
    return data


def c20(count):
    from schnet.reference.trajectories import dodecahedron

    return molecules([dodecahedron()], count)


#: name -> (structures, T, F, r_max, forces, training)
CASES = {
    "QM9-like step, batch 32": (lambda: qm9_like(32), 6, 64, 20.0, False, True),
    "QM9-like step, batch 100": (lambda: qm9_like(100), 6, 64, 20.0, False, True),
    "aspirin E+F step, batch 32": (lambda: molecules([build.named("aspirin")], 32), 3, 64, 20.0, True, True),
    "ethanol E+F step, batch 32": (lambda: molecules([build.named("ethanol")], 32), 3, 64, 20.0, True, True),
    "crystals 5 Å step, batch 32": (lambda: crystals(32), 6, 64, 5.0, False, True),
    "one C20, E+F": (lambda: c20(1), 6, 128, 20.0, True, False),
    "8 C20, E+F": (lambda: c20(8), 6, 128, 20.0, True, False),
    "32 C20, E+F": (lambda: c20(32), 6, 128, 20.0, True, False),
    "one aspirin, E+F": (lambda: molecules([build.named("aspirin")], 1), 3, 64, 20.0, True, False),
    "8 aspirin, E+F": (lambda: molecules([build.named("aspirin")], 8), 3, 64, 20.0, True, False),
    "32 aspirin, E+F": (lambda: molecules([build.named("aspirin")], 32), 3, 64, 20.0, True, False),
}


def model_for(T, F, r_max):
    torch.manual_seed(0)
    model = SchNet(Hyperparameters(n_interactions=T, n_features=F, r_max=r_max))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.03 * torch.randn_like(p))
        model.embedding.weight[0] = 0
    return model


def contenders(case, threads):
    """name -> (function of one step, energies and forces or gradients to compare)."""
    structures, T, F, r_max, forces, training = case
    data: Structures = structures()
    batch = data.batch(torch.arange(len(data)))
    target, target_forces = torch.zeros(len(batch)), torch.zeros(len(batch.positions), 3)
    edges = Edges(batch)
    out = {}

    def loss(e, f):
        value = (e - target).square().mean()
        return value if f is None else 0.01 * value + (f - target_forces).square().mean()

    def engine_step(name, make):
        model = model_for(T, F, r_max)
        if not training:
            model.eval().requires_grad_(False)
            predictor = make(model, None)
            out[name] = (lambda: predictor.evaluate(batch, forces), lambda: predictor.evaluate(batch, forces))
            return
        flat = FlatParameters(model)
        engine = make(model, flat)
        optimiser = torch.optim.Adam([flat.tensor], lr=1e-9, fused=True)

        def step():
            flat.tensor.grad.zero_()
            value = loss(*engine(batch, forces))
            value.backward()
            optimiser.step()

        def check():
            flat.tensor.grad.zero_()
            e, f = engine(batch, forces)
            loss(e, f).backward()
            return e.detach(), f, flat.tensor.grad.norm()

        out[name] = (step, check)

    r = data.distance_range()
    if native.unavailable() is None:
        engine_step(
            "engine", lambda m, fl: make_engine(m, fl, r, engine="native", threads=threads) if training else Predictor(m, threads=threads).engine
        )
    engine_step("table (PyTorch)", lambda m, fl: TableEngine(m, r))
    engine_step("reference", lambda m, fl: ReferenceEngine(m))
    for name, (_package, make) in PEERS.items():
        try:
            peer = make(model_for(T, F, r_max))
        except ImportError as error:
            print(f"  {name}: skipped, not installed ({error})")
            continue
        if not training:
            peer.requires_grad_(False)
        optimiser = torch.optim.Adam(peer.parameters(), lr=1e-9) if training else None

        def step(peer=peer, optimiser=optimiser):
            e, f = peer(edges, batch.positions, forces, training)
            if training:
                optimiser.zero_grad()
                loss(e, f).backward()
                optimiser.step()

        def check(peer=peer):
            e, f = peer(edges, batch.positions, forces, training)
            if not training:
                return e, f
            peer.zero_grad()
            loss(e, f).backward()
            return e.detach(), f, torch.stack([p.grad.norm() for p in peer.parameters() if p.grad is not None]).norm()

        out[name] = (step, check)
    return out


def agreement(results: dict) -> float:
    """Largest relative difference of energies, forces and gradient norms from the reference."""
    reference, worst = results["reference"], 0.0
    for values in results.values():
        for a, b in zip(values, reference, strict=True):
            if a is not None:
                worst = max(worst, ((a - b).double().norm() / b.double().norm().clamp_min(1e-12)).item())
    return worst


def run_case(name, case, threads, seconds):
    parts = contenders(case, threads)
    difference = agreement({k: check() for k, (_, check) in parts.items()})
    if difference > 2e-3:
        raise SystemExit(f"{name}: contenders differ by {difference:.1e} relative; nothing is timed")
    times: dict[str, list[float]] = {k: [] for k in parts}
    for step, _ in parts.values():
        step()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for k, (step, _) in parts.items():
            repeat = 10 if k == "engine" else 1
            begin = time.perf_counter()
            for _ in range(repeat):
                step()
            times[k].append((time.perf_counter() - begin) / repeat * 1e3)
    return difference, times


def growth(threads, sizes=(100, 1000, 10_000, 100_000)):
    """Seconds per atom for energies of one crystal of growing size, 5 Å cutoff."""
    model = model_for(6, 64, 5.0).eval().requires_grad_(False)
    predictor = Predictor(model, threads=threads)
    rows = []
    for size in sizes:
        n = round((size / 4) ** (1 / 3))
        atoms = bulk("Cu", "fcc", a=3.61, cubic=True).repeat((n, n, n))
        data = from_atoms([atoms], cutoff=5.0)
        data.n_neighbours = None
        batch = data.batch(torch.tensor([0]))
        predictor.engine.evaluate(batch, False)
        begin = time.perf_counter()
        repeats = max(1, 2000 // len(atoms))
        for _ in range(repeats):
            predictor.engine.evaluate(batch, False)
        seconds = (time.perf_counter() - begin) / repeats
        rows.append((len(atoms), seconds))
        print(f"  {len(atoms):8,} atoms: {1e3 * seconds:9.2f} ms, {1e6 * seconds / len(atoms):6.2f} µs per atom")
    return rows


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="per case")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--output", default="results/benchmarks", help="folder for the CSV and the plot")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    versions = {}
    for package in ("torch", "schnetpack", "torch_geometric"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    from schnet import provenance

    print(f"{provenance._cpu()}, {args.threads} threads; " + ", ".join(f"{k} {v or 'absent'}" for k, v in versions.items()))
    rows = []
    for name, case in CASES.items():
        if args.only and args.only not in name:
            continue
        difference, times = run_case(name, case, args.threads, args.seconds)
        medians = {k: statistics.median(t) for k, t in times.items()}
        spread = {k: (np.quantile(t, 0.75) - np.quantile(t, 0.25)) / 2 for k, t in times.items()}
        best = next(k for k in ("engine", "table (PyTorch)") if k in medians)
        text = "  ".join(
            f"{k} {medians[k]:.3g} ± {spread[k]:.2g} ms" + (f" ({medians[k] / medians[best]:.1f}×)" if k != best else "") for k in medians
        )
        print(f"{name} (agreement {difference:.0e}):\n  {text}")
        rows += [(name, k, medians[k], spread[k], medians[k] / medians[best], len(times[k]), difference) for k in medians]
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "ratios.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(
            ["case", "contender", "median_ms", "half_interquartile_ms", "ratio_to_engine", "samples", "agreement", "threads", "cpu", *versions]
        )
        writer.writerows(
            [*(f"{v:.4g}" if isinstance(v, float) else v for v in row), args.threads, provenance._cpu(), *versions.values()] for row in rows
        )
    if not args.only:
        print("growth with size (energies of fcc Cu, T=6, F=64, 5 Å):")
        sizes = growth(args.threads)
        with open(out / "growth.csv", "w", newline="") as f:
            writer = csv.writer(f)
            writer.writerow(["atoms", "seconds"])
            writer.writerows(sizes)
        exponent = np.polyfit(np.log([n for n, _ in sizes[1:]]), np.log([s for _, s in sizes[1:]]), 1)[0]
        print(f"  exponent {exponent:.2f}")
    plot(rows, out / "ratios.png")
    (out / "table.md").write_text(markdown(rows, args.threads, versions), encoding="utf-8")


def markdown(rows, threads, versions) -> str:
    """The measurements as a table: milliseconds, and times relative to the engine."""
    from schnet import provenance

    names = list(dict.fromkeys(r[1] for r in rows))
    peers = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    lines = [f"{provenance._cpu()}, {threads} thread{'s' * (threads > 1)}, {peers}; median ms (times the engine)", ""]
    lines += ["| case | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case in dict.fromkeys(r[0] for r in rows):
        values = {r[1]: r for r in rows if r[0] == case}
        cells = [f"{values[n][2]:.3g}" + ("" if n == "engine" else f" ({values[n][4]:.1f}×)") if n in values else "–" for n in names]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(r[0] for r in rows))
    names = [n for n in ("table (PyTorch)", "reference", *PEERS) if any(r[1] == n for r in rows)]
    colours = ["#56B4E9", "#7F7F7F", "#0072B2", "#D55E00"]
    figure, ax = plt.subplots(figsize=(6.5, 0.45 * len(cases) + 1))
    height = 0.8 / max(1, len(names))
    for k, name in enumerate(names):
        ratios = [next((r[4] for r in rows if r[0] == c and r[1] == name), math.nan) for c in cases]
        ax.barh([i + k * height for i in range(len(cases))], ratios, height, label=name, color=colours[k])
    ax.set_yticks([i + 0.4 - height / 2 for i in range(len(cases))], cases, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("time relative to the engine")
    ax.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
