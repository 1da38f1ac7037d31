"""`python -m benchmarks.jumps RUN.yaml --begin N`: what a jump of the loss is made of.

Replays a training up to step N and goes on from there several times, each time with another β₂ of
Adam. Prints, for each, the largest loss and update, and the steps up to the largest loss: loss,
norm of the gradient, root mean square of the update in learning rates.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from schnet.files import read_yaml
from schnet.record import settings_of
from schnet.run import RunSpec, make_spec
from schnet.training.loop import Trainer
from schnet.training.schedule import learning_rate

BEFORE = 12  # steps shown before the largest loss


def watched(trainer: Trainer, steps: int) -> np.ndarray:
    """Step, loss, norm of the gradient, root mean square of update / learning rate, [steps, 4]."""
    state, parameters = trainer.state, trainer.flat.tensor
    rows = []
    for _ in range(steps):
        step, before = state.step, parameters.detach().clone()
        loss = float(trainer.train_step())
        state.recent.clear()
        update = (parameters.detach() - before) / learning_rate(trainer.spec, step)
        gradient = float(parameters.grad.norm())
        rows.append((step, loss, gradient, float(update.square().mean().sqrt())))
    return np.array(rows)


def branches(spec: RunSpec, begin: int, steps: int, values: list[float]) -> dict[float, np.ndarray]:
    """`watched` for every β₂, from the same state at the step `begin`."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(spec, folder)
        while trainer.state.step < begin:
            trainer.train_step()
            trainer.state.recent.clear()
        file = Path(folder) / "state.pt"
        trainer.state.save(file, trainer.identity)
        for value in values:
            trainer.state.restore(file, trainer.identity)
            trainer.state.optimiser.beta2 = value
            found[value] = watched(trainer, steps)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run file, as of `schnet train`")
    parser.add_argument("--data", help="converted data set, in place of the run's")
    parser.add_argument("--split", help="split file, in place of the run's")
    parser.add_argument("--begin", type=int, required=True, help="step from which is compared")
    parser.add_argument("--steps", type=int, default=2000, help="compared (default: 2000)")
    parser.add_argument("--beta2", type=float, nargs="+", default=[0.999, 0.99])
    args = parser.parse_args()
    spec = make_spec(settings_of(read_yaml(args.run)), args.run)
    spec = replace(spec, data=args.data or spec.data, split=args.split or spec.split)
    for value, rows in branches(spec, args.begin, args.steps, args.beta2).items():
        worst = int(rows[:, 1].argmax())
        median = np.median(rows, axis=0)
        print(f"\nβ₂ = {value:g}, steps {args.begin:,} to {args.begin + args.steps:,}")
        print(f"loss: median {median[1]:.3g}, largest {rows[worst, 1]:.4g}")
        print(f"update: median {median[3]:.3g}, largest {rows[:, 3].max():.3g}")
        print("  step     loss gradient  update / learning rate")
        for step, loss, gradient, update in rows[max(0, worst - BEFORE) : worst + 1]:
            print(f"{int(step):6d} {loss:8.4g} {gradient:8.4g} {update:8.3f}")


if __name__ == "__main__":
    main()
