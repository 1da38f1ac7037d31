"""A fully connected network on coordinates: what ignoring physics costs.

A. Oesch, C. K. Loan, T. D. Ha, "SchNet: Milestone 1: Data Sets and Prototype" (student report,
2023), Sec. 2: a vector of 8 numbers for the element; the coordinates through two dense layers with
ReLU to 16 numbers; both side by side through one linear layer. The report leaves open how atoms
make a molecule; here their outputs are added.

Atoms do not see each other, and moving or turning a molecule changes its energy: a baseline, and
nothing to simulate with. Shapes: N atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.models.contract import MAX_Z, BaseHyperparameters, Components, Model


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What defines the baseline.

    Attributes:
        n_embedding: size of an element's vector.
        n_hidden: size of the two layers that coordinates go through.
    """

    SHORT: ClassVar[dict[str, str]] = {"n_hidden": "F"}

    n_embedding: int = 8
    n_hidden: int = 16

    def __post_init__(self):
        super().__post_init__()
        self.require_positive("n_embedding", "n_hidden")
        self.require(
            self.cutoff is None,
            "cutoff: fully_connected knows no neighbours; it takes molecules, without a cutoff",
        )


class FullyConnected(Model):
    """The network of this file's first paragraph."""

    hyperparameters: Hyperparameters
    invariant: ClassVar[bool] = False

    def __init__(self, hyperparameters: Hyperparameters | None = None):
        super().__init__(hyperparameters or Hyperparameters())
        p = self.hyperparameters
        self.embedding = nn.Embedding(MAX_Z, p.n_embedding)
        self.hidden1 = nn.Linear(3, p.n_hidden)
        self.hidden2 = nn.Linear(p.n_hidden, p.n_hidden)
        self.output = nn.Linear(p.n_embedding + p.n_hidden, 1)

    def components(self) -> Components:
        """What the model is made of, with its own numbers."""
        p = self.hyperparameters
        return Components(
            source="Oesch, Loan, Ha, student report (2023)",
            embedding=f"{p.n_embedding} numbers per element",
            basis=f"none: coordinates through two layers of {p.n_hidden}",
            message="none",
            cutoff="none: atoms do not see each other",
            update="none",
            readout=f"{p.n_embedding + p.n_hidden} → 1 per atom, {p.readout} over atoms",
        )

    def atomwise(self, batch: Batch) -> Tensor:
        """The contribution of every atom, [N], before scale and offsets."""
        place = torch.relu(self.hidden2(torch.relu(self.hidden1(batch.positions))))
        both = torch.cat([self.embedding(batch.atomic_numbers), place], 1)
        return self.output(both).squeeze(-1)
