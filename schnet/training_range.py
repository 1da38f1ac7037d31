"""What a model was trained on, and where structures lie outside of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from schnet.data.structures import Batch, Structures, from_atoms
from schnet.errors import SchNetError
from schnet.models import Model

log = logging.getLogger("schnet")
CLOSE = 0.01  # Å beyond the range of training that is no matter
RARE = 0.01  # an element in a smaller part of the training structures is worth a word


def training_range(structures: Structures, distances: tuple[float, float]) -> dict:
    """What a model file tells of the structures that the model was trained on.

    Args:
        structures: the training structures.
        distances: smallest and largest distance of their pairs in Å.

    Returns:
        ``distances``; ``atoms``: smallest and largest number of atoms; ``structures``: how many;
        ``elements``: in how many of them every element occurs.
    """
    counts = structures.counts.cpu().numpy()
    owner = np.repeat(np.arange(len(counts)), counts)
    numbers = structures.atomic_numbers.cpu().numpy()
    once = np.unique(np.stack([owner, numbers]), axis=1)[1]
    elements, occurs = np.unique(once, return_counts=True)
    return {
        "distances": [round(d, 3) for d in distances],
        "atoms": [int(counts.min()), int(counts.max())],
        "structures": len(counts),
        "elements": {chemical_symbols[z]: int(n) for z, n in zip(elements, occurs, strict=True)},
    }


def cautions(model: Model, images: Sequence[Atoms], distances: tuple[float, float]) -> list[str]:
    """In which respects structures lie outside of what a model was trained on.

    Args:
        model: the model; where its file does not tell, as those of earlier versions, that is said.
        images: the structures.
        distances: smallest and largest distance of their pairs in Å.
    """
    known = model.provenance
    if "distances" not in known:
        return [
            "the model's file does not tell on what structures it was trained: none is compared"
        ]
    out = []
    smallest, largest = known["distances"]
    if distances[0] < smallest - CLOSE:
        out.append(
            f"atoms come as close as {distances[0]:.2f} Å; the model was trained on "
            f"{smallest:.2f} Å and more"
        )
    if distances[1] > largest + CLOSE and model.hyperparameters.cutoff is None:
        out.append(
            f"atoms are up to {distances[1]:.2f} Å apart; the model was trained on "
            f"{largest:.2f} Å and less"
        )
    if "atoms" in known:
        fewest, most = known["atoms"]
        counts = [len(atoms) for atoms in images]
        outside = sum(not fewest <= count <= most for count in counts)
        if outside:
            out.append(
                f"{outside:,} of {len(counts):,} structures have other sizes (there are "
                f"{_span(min(counts), max(counts))} atoms) than those that the model was trained "
                f"on ({_span(fewest, most)})"
            )
    there = {symbol for atoms in images for symbol in atoms.symbols}
    for symbol, count in known.get("elements", {}).items():
        if symbol in there and count < RARE * known["structures"]:
            out.append(
                f"{symbol} occurs in {count:,} of {known['structures']:,} training structures only"
            )
    return out


def _span(smallest: int, largest: int) -> str:
    return f"{smallest} to {largest}" if smallest < largest else f"{largest}"


def distances_of(batch: Batch) -> tuple[float, float]:
    """Smallest and largest distance of the pairs of a batch in Å; (inf, 0) without pairs."""
    found = batch.distances()
    return (float(found.min()), float(found.max())) if len(found) else (np.inf, 0.0)


def warn_outside(models: Sequence[Model], atoms: Atoms, what: str) -> None:
    """Log in which respects a structure lies outside of what models were trained on.

    Models whose files do not tell are left out, and so are those that cannot predict it: whoever
    computes with them says why.

    Args:
        models: the members of a committee.
        atoms: the structure.
        what: it is called in the message.
    """
    said: dict[str, None] = {}
    for model in models:
        if "distances" not in model.provenance:
            continue
        try:
            data = from_atoms([atoms], cutoff=model.hyperparameters.cutoff)
        except SchNetError:
            continue
        distances = distances_of(data.batch(torch.tensor([0])))
        said.update(dict.fromkeys(cautions(model, [atoms], distances)))
    for text in said:
        log.warning("caution, %s: %s", what, text)
