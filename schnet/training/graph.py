"""Training steps on a GPU as one CUDA graph.

SchNet's kernels take less time than starting them one by one does. A graph starts them all at once,
from the drawing of the batch to its gradient, but with the very same shapes every time, so batches
are filled up to one size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from schnet.data.structures import Room, Structures
from schnet.engine import FlatParameters
from schnet.errors import first_line

log = logging.getLogger("schnet")
AGREEMENT = 1e-3  # relative difference of gradients above which the graph is not used
#: standard deviations of room above the mean: the sum over a batch is nearly normal, which exceeds
#: 4 σ three times in 100,000, or somewhat more often where few large structures make it skewed
PADDING_MARGIN = 4.0
SPARE_ATOMS = 16  # to fill up at least: the more there are, the fewer pairs has each


def capacity(counts: Tensor, batch_size: int) -> int:
    """A number that the sum of a random batch of counts exceeds less than once in 10,000 batches.

    Args:
        counts: atoms or pairs of every structure, [M].
        batch_size: structures in a batch.
    """
    counts = counts.double()
    spread = float(counts.std(correction=0)) if len(counts) else 0.0
    margin = PADDING_MARGIN * math.sqrt(batch_size) * spread
    return math.ceil(batch_size * float(counts.mean()) + margin)


class GraphedGradient:
    """``gradient(indices, room)`` recorded at the first call and replayed from then on.

    The gradient of a batch is written to fixed memory, its loss returned. What does not fit, or
    does not give the same gradient, is computed as it is.
    """

    def __init__(
        self,
        gradient,
        flat: FlatParameters,
        data: Structures,
        batch_size: int,
        distances: tuple[float, float],
    ):
        """Prepare a graph; nothing is recorded yet.

        Args:
            gradient: writes the gradient for structures of given indices to flat.tensor.grad, in a
                batch that is filled up to a given Room, and returns the loss.
            flat: the parameters.
            data: the training structures.
            batch_size: of every call.
            distances: range in Å of the pairs that fill up.
        """
        self.gradient, self.flat, self.data = gradient, flat, data
        n_atoms = capacity(data.counts, batch_size) + SPARE_ATOMS
        self.room = Room(n_atoms, capacity(data.pair_count, batch_size), distances)
        self.run: Callable[[], None] | None = None
        self.broken = False

    def __call__(self, indices: Tensor) -> Tensor:
        """Loss of the structures with these indices; their gradient is in flat.tensor.grad."""
        if self.broken or not self.data.fits(indices, self.room):
            return self.gradient(indices)
        if self.run is None:
            self.indices = self.data.on_device(indices).clone()
            try:
                self.run, self.loss = self._record()
            except RuntimeError as error:
                return self._give_up(first_line(error), indices)
            difference = self._difference(indices)
            if not difference < AGREEMENT:
                return self._give_up(f"its gradient differs by {difference:.1e}", indices)
            log.info(
                "every step is one CUDA graph of %s atoms and %s pairs",
                f"{self.room.n_atoms:,}",
                f"{self.room.n_pairs:,}",
            )
        return self._replay(indices)

    @torch.no_grad()
    def _difference(self, indices: Tensor) -> float:
        """Relative difference of the replayed gradient, at weights moved a little.

        New weights have many zeros, at which wrong gradients can agree.
        """
        flat = self.flat.tensor
        weights = flat.detach().clone()
        flat += 0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)).to(flat)
        self._replay(indices)
        mine = flat.grad.clone()
        with torch.enable_grad():
            self.gradient(indices)
        flat.copy_(weights)
        return float((flat.grad - mine).norm() / flat.grad.norm())

    def _record(self):
        """Record a call of ``gradient``; returns the graph's replay and where its loss will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles kernels, fills caches
                self.gradient(self.indices, self.room)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            loss = self.gradient(self.indices, self.room)
        return graph.replay, loss

    def _replay(self, indices: Tensor) -> Tensor:
        self.indices.copy_(indices, non_blocking=True)
        assert self.run is not None  # recorded
        self.run()
        return self.loss.clone()

    def _give_up(self, reason: str, indices: Tensor) -> Tensor:
        log.warning("no CUDA graph: %s", reason)
        self.broken = True
        return self.gradient(indices)
