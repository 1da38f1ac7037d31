"""`python -m benchmarks.outliers RUN`: what the largest errors of a finished SchNet come from.

Prints how large the features of atoms become in the training and in the test structures, the errors
of test structures with an atom beyond all of the training structures, and for the largest errors
each atom: its number of neighbours, its share of the output, its features block by block.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from schnet.data.structures import Batch
from schnet.models import load_model
from schnet.models.schnet import SchNet
from schnet.record import finished_run, open_inputs_of
from schnet.run import MODEL_FILE

CHUNK = 256  # structures at a time
ATOMS = 12  # shown of a structure, those with the largest features


def features(model: SchNet, batch: Batch) -> torch.Tensor:
    """Norms of the features of all atoms after embedding and every block, [N, T + 1]."""
    e, n_neighbours = model.radial_basis(batch.distances()), model.neighbour_counts(batch)
    x = model.embedding(batch.atomic_numbers)
    norms = [x.norm(dim=1)]
    for block in model.blocks():
        x = block(x, e, batch, n_neighbours)
        norms.append(x.norm(dim=1))
    return torch.stack(norms, 1)


def judged(model: SchNet, inputs, indices: np.ndarray, target: str) -> np.ndarray:
    """Error of each structure and the largest norm of its atoms' last features, [M, 2]."""
    out = []
    for begin in range(0, len(indices), CHUNK):
        chunk = indices[begin : begin + CHUNK]
        data = inputs.load(chunk, [target], cutoff=model.hyperparameters.cutoff)
        batch = data.batch(torch.arange(len(chunk)))
        error = model(batch) + model.offset(batch) - data.properties[target]
        last = features(model, batch)[:, -1].numpy()
        largest = np.maximum.reduceat(last, data.offsets[:-1].numpy())
        out.append(np.stack([error.numpy(), largest], 1))
    return np.concatenate(out)


def show(model: SchNet, batch: Batch) -> None:
    """Print the atoms of one structure, those with the largest features first."""
    norms = features(model, batch)
    shares = float(model.scale) * model.atomwise(batch)
    neighbours = torch.bincount(torch.cat([batch.i, batch.j]), minlength=len(shares))
    for atom in norms[:, -1].argsort(descending=True)[:ATOMS]:
        symbol = chemical_symbols[int(batch.atomic_numbers[atom])]
        blocks = " ".join(f"{norm:9.1f}" for norm in norms[atom])
        print(f"  {symbol:2} {neighbours[atom]:10d} {shares[atom]:10.2f} {blocks}")


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="directory of a finished run")
    parser.add_argument("--data", help="converted data set, in place of the run's")
    parser.add_argument("--split", help="split file, in place of the run's")
    parser.add_argument("--neighbours", help="neighbour lists, in place of the run's")
    parser.add_argument("--largest", type=int, default=5, help="errors shown (default: 5)")
    args = parser.parse_args()
    paths = {"data": args.data, "split": args.split, "neighbours": args.neighbours}
    spec, about = finished_run(args.run, **paths)
    inputs = open_inputs_of(args.run, spec, about)
    model = load_model(Path(args.run) / MODEL_FILE)
    unit = inputs.store.properties[spec.target].unit
    found = {
        part: judged(model, inputs, inputs.parts[part], spec.target) for part in ("train", "test")
    }
    for part, rows in found.items():
        norms = rows[:, 1]
        quantiles = np.quantile(norms, [0.5, 0.99, 1])
        text = ", ".join(f"{value:.4g}" for value in quantiles)
        print(f"largest features of {len(norms):,} {part} structures: median, 99 %, largest {text}")
    errors, norms = found["test"].T
    beyond = norms > found["train"][:, 1].max()
    for what, some in (("beyond all training structures", beyond), ("others", ~beyond)):
        mean = np.abs(errors[some]).mean() if some.any() else float("nan")
        print(f"test structures, {what}: {some.sum():,}, mean absolute error {mean:.4g} {unit}")
    ids = inputs.store.ids()
    for k in np.abs(errors).argsort()[::-1][: args.largest]:
        index = inputs.parts["test"][k]
        print(f"\n{ids[index]}: error {errors[k]:.4g} {unit}; its atoms, largest features first:")
        print(f"     neighbours {'share':>10} features after embedding and every block")
        data = inputs.load([index], [], cutoff=model.hyperparameters.cutoff)
        show(model, data.batch(torch.arange(1)))


if __name__ == "__main__":
    main()
