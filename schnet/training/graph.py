"""Training steps on a GPU as one CUDA graph.

SchNet's kernels take less time than starting them one by one does. A graph starts them all at once, but with the
very same shapes every time, so batches are padded to one size.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from schnet.data.structures import Batch, Structures

log = logging.getLogger("schnet")
AGREEMENT = 1e-3  # relative difference of gradients above which the graph is not used


def capacity(counts: Tensor, batch_size: int) -> int:
    """A number that the sum of a random batch of counts exceeds less than once in 10,000 batches."""
    counts = counts.double()
    spread = float(counts.std(correction=0)) if len(counts) else 0.0
    return math.ceil(batch_size * float(counts.mean()) + 4 * math.sqrt(batch_size) * spread)


def pad(batch: Batch, n_atoms: int, n_pairs: int, distances: tuple[float, float]) -> Batch:
    """The batch with n_atoms atoms and n_pairs pairs: one more structure takes what is missing.

    Its pairs join atoms with images of themselves and so exert no forces, at distances (in Å) from one to the other:
    were they the same, one bin of the table would have them all. n_atoms must leave at least one atom to the
    additional structure.
    """
    n, p = len(batch.positions), len(batch.i)
    atoms, pairs = n_atoms - n, n_pairs - p

    def more(x, count, value=0):
        return torch.cat([x, x.new_full((count, *x.shape[1:]), value)])

    ghosts = (n + torch.arange(pairs, device=batch.i.device) % atoms).to(batch.i.dtype)
    shift = batch.positions.new_zeros(p, 3) if batch.shift is None else batch.shift
    away = torch.linspace(*distances, pairs, dtype=shift.dtype, device=shift.device) / math.sqrt(3)
    return Batch(
        more(batch.atomic_numbers, atoms),
        more(batch.positions, atoms),
        more(batch.atom_ptr, 1, n_atoms),
        more(batch.pair_ptr, 1, n_pairs),
        torch.cat([batch.i, ghosts]),
        torch.cat([batch.j, ghosts]),
        torch.cat([shift, away[:, None].expand(-1, 3)]),
        None if batch.n_neighbours is None else more(batch.n_neighbours, atoms, 1),
    )


class GraphedGradient:
    """``gradient(batch, target, target_forces)``, which writes parameter gradients to fixed memory and returns the loss,
    recorded at the first call and replayed from then on. What does not fit, or does not give the same gradient, is
    computed as it is."""

    def __init__(self, gradient, flat, data: Structures, batch_size: int, distances: tuple[float, float]):
        self.gradient, self.flat, self.distances = gradient, flat, distances
        self.n_atoms = capacity(data.counts, batch_size) + 16  # the more atoms, the fewer pairs has each
        self.n_pairs = capacity(data.pair_count, batch_size)
        self.run, self.broken = None, False

    def __call__(self, batch: Batch, target: Tensor, target_forces: Tensor | None) -> Tensor:
        if self.broken or len(batch.positions) >= self.n_atoms or len(batch.i) > self.n_pairs:
            return self.gradient(batch, target, target_forces)
        inputs = self.padded(batch, target, target_forces)
        if self.run is None:
            padded, *targets = inputs
            copy = Batch(**{k: None if t is None else t.clone() for k, t in padded.__dict__.items()})
            self.inputs = copy, *(None if t is None else t.clone() for t in targets)
            try:
                self.run, self.loss = self._record()
            except RuntimeError as error:
                return self._give_up(str(error).splitlines()[0], batch, target, target_forces)
            difference = self._difference(inputs, batch, target, target_forces)
            if not difference < AGREEMENT:
                return self._give_up(f"its gradient differs by {difference:.1e}", batch, target, target_forces)
            log.info("every step is one CUDA graph of %s atoms and %s pairs", f"{self.n_atoms:,}", f"{self.n_pairs:,}")
        return self._replay(inputs)

    @torch.no_grad()
    def _difference(self, padded, *inputs) -> float:
        """Relative difference of the replayed gradient, at weights moved a little: new ones have many zeros."""
        flat = self.flat.tensor
        weights = flat.detach().clone()
        flat += 0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)).to(flat)
        self._replay(padded)
        mine = flat.grad.clone()
        with torch.enable_grad():
            self.gradient(*inputs)
        flat.copy_(weights)
        return float((flat.grad - mine).norm() / flat.grad.norm())

    def padded(self, batch, target, target_forces) -> tuple[Batch, Tensor, Tensor | None]:
        """The arguments of ``gradient`` in the shapes of the graph."""
        batch = pad(batch, self.n_atoms, self.n_pairs, self.distances)
        if target_forces is not None:
            missing = self.n_atoms - len(target_forces)
            target_forces = torch.cat([target_forces, target_forces.new_zeros(missing, 3)])
        return batch, target, target_forces

    @staticmethod
    def _tensors(inputs) -> list[Tensor]:
        batch, *targets = inputs
        return [t for t in (*batch.__dict__.values(), *targets) if t is not None]

    def _record(self):
        """One call of ``gradient`` with ``inputs`` as a CUDA graph; returns what runs it again and where its loss will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles kernels, fills caches
                self.gradient(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            loss = self.gradient(*self.inputs)
        return graph.replay, loss

    def _replay(self, inputs) -> Tensor:
        for fixed, new in zip(self._tensors(self.inputs), self._tensors(inputs), strict=True):
            fixed.copy_(new)
        self.run()
        return self.loss.clone()

    def _give_up(self, reason, *inputs):
        log.warning("no CUDA graph: %s", reason)
        self.broken = True
        return self.gradient(*inputs)
