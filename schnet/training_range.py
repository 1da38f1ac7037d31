"""What a model was trained on, and where structures lie outside of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from schnet.data.structures import Batch, Structures
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


def cautions(
    model: Model, images: Sequence[Atoms], distances: tuple[float, float]
) -> dict[str, str]:
    """In which respects structures lie outside of what a model was trained on.

    It is no error to give a molecule to a model with a cutoff: models of molecules may have one,
    and files of earlier versions do not tell what they were trained on.

    Args:
        model: the model; where its file does not tell, as those of earlier versions, that is said.
        images: the structures.
        distances: smallest and largest distance of their pairs in Å.

    Returns:
        A sentence for each respect; the keys name the respects.
    """
    known = model.provenance
    out = {}
    strange = _periodicity(model, images)
    if strange:
        out["periodicity"] = strange
    if "distances" not in known:
        out["unknown"] = (
            "the model's file does not tell on what structures it was trained: none is compared"
        )
        return out
    close = caution_of_close_atoms(model, distances[0])
    if close:
        out["close"] = close
    largest = known["distances"][1]
    if distances[1] > largest + CLOSE and model.hyperparameters.cutoff is None:
        out["far"] = (
            f"atoms are up to {distances[1]:.2f} Å apart; the model was trained on "
            f"{largest:.2f} Å and less"
        )
    if "atoms" in known:
        fewest, most = known["atoms"]
        counts = [len(atoms) for atoms in images]
        outside = sum(not fewest <= count <= most for count in counts)
        if outside:
            out["size"] = (
                f"{outside:,} of {len(counts):,} structures have other sizes (there are "
                f"{_span(min(counts), max(counts))} atoms) than those that the model was trained "
                f"on ({_span(fewest, most)})"
            )
    there = {symbol for atoms in images for symbol in atoms.symbols}
    for symbol, count in known.get("elements", {}).items():
        if symbol in there and count < RARE * known["structures"]:
            out[symbol] = (
                f"{symbol} occurs in {count:,} of {known['structures']:,} training structures only"
            )
    return out


def caution_of_close_atoms(model: Model, shortest: float) -> str | None:
    """What is to be said where atoms come closer (``shortest``, in Å) than in training."""
    smallest = model.provenance.get("distances", [0.0])[0]
    if shortest >= smallest - CLOSE:
        return None
    return (
        f"atoms come as close as {shortest:.2f} Å; the model was trained on {smallest:.2f} Å "
        "and more"
    )


def _periodicity(model: Model, images: Sequence[Atoms]) -> str | None:
    """What is to be said where crystals meet a model of molecules, or the reverse."""
    crystals = model.provenance.get("periodic")
    cutoff = model.hyperparameters.cutoff
    periodic = [bool(atoms.pbc.any()) for atoms in images]
    if any(periodic) and crystals is False:
        return "periodic; the model was trained on molecules"
    if all(periodic):
        return None
    if crystals:
        return "not periodic; the model was trained on crystals"
    if crystals is None and cutoff is not None:
        return (
            f"not periodic, and the model has a cutoff of {cutoff} Å: if it was trained on "
            "crystals, it knows nothing of molecules"
        )
    return None


def _span(smallest: int, largest: int) -> str:
    return f"{smallest} to {largest}" if smallest < largest else f"{largest}"


def distances_of(batch: Batch) -> tuple[float, float]:
    """Smallest and largest distance of the pairs of a batch in Å; (inf, 0) without pairs."""
    found = batch.distances()
    return (float(found.min()), float(found.max())) if len(found) else (np.inf, 0.0)


#: structures, respects and training ranges that were warned of
_warned: set[tuple[str, str, str]] = set()


def warn_once(model: Model, what: str, respect: str, text: str) -> None:
    """Log a caution, once for each structure, respect and training range.

    Args:
        model: the model.
        what: the structure is called in the message.
        respect: a key of ``cautions``.
        text: the sentence.
    """
    known = [model.provenance.get(key) for key in ("distances", "atoms", "structures")]
    key = what, respect, repr(known)
    if key not in _warned:
        _warned.add(key)
        log.warning("caution, %s: %s", what, text)
