"""Training steps on a GPU as one CUDA graph.

SchNet's kernels take less time than starting them one by one does. A graph starts them all at once,
from the drawing of the batch to its gradient, but with the very same shapes every time. Batches are
therefore filled up to one of few sizes, each of which has a graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from schnet.data.structures import Room, Structures
from schnet.engine import FlatParameters
from schnet.errors import first_line

log = logging.getLogger("schnet")
AGREEMENT = 1e-3  # relative difference of gradients above which the graph is not used
STEP = 1.15  # of a size to the next one
SPARE_ATOMS = 16  # to fill up at least: the more there are, the fewer pairs has each
MOST_GRAPHS = 64  # of a training; batches of rarer sizes go without


def filled(size: int, usual: float) -> int:
    """The smallest of the sizes ``usual`` · STEP^k, k any whole number, that is not below a size.

    Where all batches are alike it is their own.
    """
    if not size:
        return 0
    k = math.ceil(math.log(size / usual, STEP) - 1e-9)
    return max(size, math.ceil(usual * STEP**k))


class GraphedGradient:
    """``gradient(indices, room)``, recorded at the first batch of a size and replayed from then on.

    The gradient of a batch is written to fixed memory, its loss returned. Where recording fails or
    does not give the same gradient, all batches are computed as they are.
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
        self.distances = distances
        self.usual_atoms = batch_size * float(data.counts.double().mean()) + SPARE_ATOMS
        self.usual_pairs = batch_size * float(data.pair_count.double().mean())
        self.graphs: dict[Room, tuple[Callable[[], None], Tensor]] = {}
        self.pool: Any = None  # memory that the graphs share: one at a time is at work
        self.broken = False

    def room(self, indices: Tensor) -> Room:
        """The size to which a batch is filled up."""
        n_atoms, n_pairs = self.data.size(indices)
        return Room(
            filled(n_atoms + SPARE_ATOMS, self.usual_atoms),
            filled(n_pairs, self.usual_pairs),
            self.distances,
        )

    def __call__(self, indices: Tensor) -> Tensor:
        """Loss of the structures with these indices; their gradient is in flat.tensor.grad."""
        if self.broken:
            return self.gradient(indices)
        room = self.room(indices)
        if room not in self.graphs:
            if len(self.graphs) == MOST_GRAPHS:
                return self.gradient(indices)
            reason = self._add(indices, room)
            if reason:
                return self._give_up(reason, indices)
        return self._replay(indices, room)

    def _add(self, indices: Tensor, room: Room) -> str | None:
        """Record a graph for batches of this size; returns why it cannot be used, or None."""
        if not self.graphs:
            self.indices = self.data.on_device(indices).clone()
        self.indices.copy_(indices)
        try:
            self.graphs[room] = self._record(room)
        except RuntimeError as error:
            return first_line(error)
        difference = self._difference(indices, room)
        if not difference < AGREEMENT:
            return f"its gradient differs by {difference:.1e}"
        if len(self.graphs) == 1:
            log.info(
                "every step is one CUDA graph of %s atoms and %s pairs, or of another size",
                f"{room.n_atoms:,}",
                f"{room.n_pairs:,}",
            )
        return None

    @torch.no_grad()
    def _difference(self, indices: Tensor, room: Room) -> float:
        """Relative difference of the replayed gradient, at weights moved a little.

        New weights have many zeros, at which wrong gradients can agree.
        """
        flat = self.flat.tensor
        weights = flat.detach().clone()
        flat += 0.05 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)).to(flat)
        self._replay(indices, room)
        mine = flat.grad.clone()
        with torch.enable_grad():
            self.gradient(indices)
        flat.copy_(weights)
        return float((flat.grad - mine).norm() / flat.grad.norm())

    def _record(self, room: Room) -> tuple[Callable[[], None], Tensor]:
        """Record a call of ``gradient``; returns the graph's replay and where its loss will be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles kernels, fills caches
                self.gradient(self.indices, room)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=stream):
            loss = self.gradient(self.indices, room)
        self.pool = graph.pool()
        return graph.replay, loss

    def _replay(self, indices: Tensor, room: Room) -> Tensor:
        replay, loss = self.graphs[room]
        self.indices.copy_(indices, non_blocking=True)
        replay()
        return loss.clone()

    def _give_up(self, reason: str, indices: Tensor) -> Tensor:
        log.warning("no CUDA graph: %s", reason)
        self.broken = True
        return self.gradient(indices)
