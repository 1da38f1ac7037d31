"""`python -m benchmarks`: time the engine beside its peers and print ratios.

Every contender gets the same weights, pairs and inputs; agreement is checked before anything is
timed. The contenders take turns (A B C A B C …), so a noisy machine disturbs them alike; medians
and ratios are reported.
Crystals: the peers do not divide by the number of neighbours, so here nobody does.
"""

from __future__ import annotations

import argparse
import csv
import gc
import importlib.metadata
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk

from benchmarks import training
from benchmarks.cases import CASES, model_for
from benchmarks.peers import PEERS, Edges
from schnet import provenance
from schnet.data.structures import Structures, from_atoms
from schnet.engine import FlatParameters, ReferenceEngine, make_engine, native
from schnet.engine.inference import Predictor
from schnet.engine.table import TableEngine

TURN = 0.05  # seconds; as in a training or MD run, a step finds caches as its predecessor left them
TRAINING = "QM9-like training with loading, batch 32"
MARKS = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def contenders(case, threads):
    """name -> (function of one step, energies and forces or gradients to compare)."""
    forces, training = case.forces, case.training
    data: Structures = case.structures()
    batch = data.batch(torch.arange(len(data)))
    target, target_forces = torch.zeros(len(batch)), torch.zeros(len(batch.positions), 3)
    edges = Edges.of(batch)
    out = {}

    def loss(e, f):
        value = (e - target).square().mean()
        return value if f is None else 0.01 * value + (f - target_forces).square().mean()

    def engine_step(name, make):
        model = model_for(case.T, case.F, case.r_max, case.readout)
        if not training:
            model.eval().requires_grad_(False)
            predictor = make(model, None)
            out[name] = (
                lambda: predictor.evaluate(batch, forces),
                lambda: predictor.evaluate(batch, forces),
            )
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
            "engine",
            lambda m, fl: (
                make_engine(m, fl, r, engine="native", threads=threads)
                if training
                else Predictor(m, threads=threads)
            ),
        )
    engine_step("table (PyTorch)", lambda m, fl: TableEngine(m, r))
    engine_step("reference", lambda m, fl: ReferenceEngine(m))
    peers = PEERS if case.readout == "sum" else {}  # they have no dipole layer like ours
    for name, (_package, make) in peers.items():
        try:
            peer = make(model_for(case.T, case.F, case.r_max))
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
            return (
                e.detach(),
                f,
                torch.stack(
                    [p.grad.norm() for p in peer.parameters() if p.grad is not None]
                ).norm(),
            )

        out[name] = (step, check)
    return out


def agreement(results: dict) -> float:
    """Largest relative difference of energies, forces and gradient norms from the reference."""
    reference, worst = results["reference"], 0.0
    for values in results.values():
        for a, b in zip(values, reference, strict=True):
            if a is not None:
                worst = max(
                    worst, ((a - b).double().norm() / b.double().norm().clamp_min(1e-12)).item()
                )
    return worst


def take_turns(steps: dict, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every contender's step, measured in turns of at least TURN seconds."""
    times: dict[str, list[float]] = {k: [] for k in steps}
    repeats = {}
    for k, step in steps.items():
        step()
        begin = time.perf_counter()
        step()
        repeats[k] = math.ceil(TURN / (time.perf_counter() - begin))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for k, step in steps.items():
            begin = time.perf_counter()
            for _ in range(repeats[k]):
                step()
            times[k].append(1e3 * (time.perf_counter() - begin) / repeats[k])
    return times


def run_case(name, case, threads, seconds):
    parts = contenders(case, threads)
    difference = agreement({k: check() for k, (_, check) in parts.items()})
    if difference > 2e-3:
        raise SystemExit(
            f"{name}: contenders differ by {difference:.1e} relative; nothing is timed"
        )
    return difference, take_turns({k: step for k, (step, _) in parts.items()}, seconds)


def run_training(threads, seconds):
    """A QM9-like training with its data loading; the agreement is that of the steps above."""
    with tempfile.TemporaryDirectory() as folder:
        steps = {}
        for name in training.CONTENDERS:
            if name.startswith("engine") and native.unavailable():
                continue
            try:
                steps[name] = training.steps(name, threads, Path(folder) / str(len(steps)))
            except ImportError as error:
                print(f"  {name}: skipped, not installed ({error})")
        return math.nan, take_turns(steps, seconds)


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
        predictor.evaluate(batch, False)
        begin = time.perf_counter()
        repeats = max(1, 2000 // len(atoms))
        for _ in range(repeats):
            predictor.evaluate(batch, False)
        seconds = (time.perf_counter() - begin) / repeats
        rows.append((len(atoms), seconds))
        each = 1e6 * seconds / len(atoms)
        print(f"  {len(atoms):8,} atoms: {1e3 * seconds:9.2f} ms, {each:6.2f} µs per atom")
    return rows


def versions() -> dict[str, str]:
    out = {}
    for package in ("torch", "schnetpack", "torch_geometric"):
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return out


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="per case")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument(
        "--output",
        default="results/benchmarks",
        help="folder for the CSV files, the plot and the table",
    )
    parser.add_argument(
        "--document",
        help="Markdown file whose part between the benchmark marks is replaced by the table",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    packages = versions()
    about = f"{provenance._cpu()}, {args.threads} thread{'s' * (args.threads > 1)}, " + ", ".join(
        f"{k} {v}" for k, v in packages.items()
    )
    print(about)
    gc.freeze()  # keeps the garbage collector off what the imports left, for all contenders alike
    cases = {
        name: lambda case=case, name=name: run_case(name, case, args.threads, args.seconds)
        for name, case in CASES.items()
    }
    cases[TRAINING] = lambda: run_training(args.threads, args.seconds)
    rows = []
    for name, run in cases.items():
        if args.only and args.only not in name:
            continue
        difference, times = run()
        medians = {k: statistics.median(t) for k, t in times.items()}
        spread = {k: (np.quantile(t, 0.75) - np.quantile(t, 0.25)) / 2 for k, t in times.items()}
        best = next(k for k in ("engine", "table (PyTorch)") if k in medians)
        text = "  ".join(
            f"{k} {medians[k]:.3g} ± {spread[k]:.2g} ms"
            + (f" ({medians[k] / medians[best]:.1f}×)" if k != best else "")
            for k in medians
        )
        print(f"{name} (agreement {difference:.0e}):\n  {text}")
        rows += [
            (name, k, medians[k], spread[k], medians[k] / medians[best], len(times[k]), difference)
            for k in medians
        ]
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    columns = [
        "case",
        "contender",
        "median_ms",
        "half_interquartile_ms",
        "ratio_to_engine",
        "samples",
        "agreement",
    ]
    write_csv(
        out / "ratios.csv",
        [*columns, "threads", "cpu", *packages],
        [[*row, args.threads, provenance._cpu(), *packages.values()] for row in rows],
    )
    text = markdown(rows, about)
    if not args.only:
        print("growth with size (energies of fcc Cu, T=6, F=64, 5 Å):")
        sizes = growth(args.threads)
        write_csv(out / "growth.csv", ["atoms", "seconds"], sizes)
        (a, first), (b, last) = sizes[0], sizes[-1]
        text += f"\nEnergies of fcc copper (T=6, F=64, 5 Å): {1e6 * first / a:.1f} µs per atom at "
        text += f"{a:,} atoms, {1e6 * last / b:.1f} µs at {b:,}.\n"
        print(f"memory of 100 steps of {TRAINING}:")
        peaks = {
            k: training.memory(k, args.threads)
            for k in training.CONTENDERS
            if k != "engine, no loading"
        }
        peaks = {k: v for k, v in peaks.items() if v}
        for k, v in peaks.items():
            later = v["after_imports_mb"]
            print(f"  {k}: peak {v['peak_mb']:.0f} MB, {later:.0f} MB of it after the imports")
        write_csv(
            out / "memory.csv",
            ["contender", "peak_mb", "after_imports_mb"],
            [[k, *v.values()] for k, v in peaks.items()],
        )
        text += (
            "\n| memory of 100 training steps | "
            + " | ".join(peaks)
            + " |\n|---|"
            + "---|" * len(peaks)
        )
        for key, label in (
            ("peak_mb", "peak of the process, MB"),
            ("after_imports_mb", "after the imports, MB"),
        ):
            text += f"\n| {label} | " + " | ".join(f"{v[key]:.0f}" for v in peaks.values()) + " |"
        text += "\n"
    plot(rows, out / "ratios.png")
    (out / "table.md").write_text(text, encoding="utf-8")
    if args.document:
        document = Path(args.document)
        before, _, rest = document.read_text(encoding="utf-8").partition(MARKS[0])
        document.write_text(
            f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8"
        )


def write_csv(path, columns, rows):
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows([f"{v:.4g}" if isinstance(v, float) else v for v in row] for row in rows)


def markdown(rows, about) -> str:
    """The measurements as a table: milliseconds, and times relative to the engine."""
    names = list(dict.fromkeys(r[1] for r in rows))
    lines = [
        f"{about}; median ms (times the engine)",
        "",
        "| case | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for case in dict.fromkeys(r[0] for r in rows):
        values = {r[1]: r for r in rows if r[0] == case}
        cells = [
            f"{values[n][2]:.3g}" + ("" if n == "engine" else f" ({values[n][4]:.1f}×)")
            if n in values
            else "–"
            for n in names
        ]
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
        ax.barh(
            [i + k * height for i in range(len(cases))],
            ratios,
            height,
            label=name,
            color=colours[k],
        )
    ax.set_yticks([i + 0.4 - height / 2 for i in range(len(cases))], cases, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("time relative to the engine")
    ax.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
