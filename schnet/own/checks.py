"""What looks wrong in one's own data: repeated structures, labels that cannot be right."""

from __future__ import annotations

import logging

import numpy as np

from schnet.data.splits import seen_in_training
from schnet.data.store import Store
from schnet.figures.results import predictions
from schnet.run import Run

log = logging.getLogger("schnet")
#: times the median deviation of a label: more is no physics
ODD = 100
#: part of the mean force by which forces may be wrong to count as learned
LEARNED = 0.3


def warn_of_repeated_structures(store: Store, parts: dict, source) -> None:
    """Warn where structures to validate and test were trained on."""
    repeated = seen_in_training(store, parts)
    if repeated:
        log.warning(
            "%s: %s structures to validate and test are in the training part too, with the same "
            "positions; the errors will look too small",
            source,
            f"{repeated:,}",
        )


def warn_of_odd_labels(store: Store, target: str) -> None:
    """Warn where a label is far from what the elements of its structure suggest."""
    with store.open() as h5:
        values = h5[f"properties/{target}"][:].astype(float)
        elements, kind = np.unique(h5["atomic_numbers"][:], return_inverse=True)
    counts = np.zeros((len(store), len(elements)))
    owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    np.add.at(counts, (owner, kind), 1)
    if store.properties[target].unit.endswith("/atom"):
        counts /= counts.sum(1, keepdims=True)
    away = np.zeros(len(store))
    kept = np.full(len(store), True)
    for _ in range(2):  # the second time without those that would pull the fit to themselves
        away = values - counts @ np.linalg.lstsq(counts[kept], values[kept], rcond=None)[0]
        away = np.abs(away - np.median(away))
        kept = away <= np.quantile(away, 0.9)
    odd = np.flatnonzero(away > ODD * max(np.median(away), 1e-9 * np.abs(values).max()))
    if len(odd):
        worst = odd[away[odd].argmax()]
        log.warning(
            "%s: %s of %s structures are far off; structure %s: %s is %.4g %s from what the others "
            "suggest. Look at it: one wrong label spoils the errors of all",
            store.path,
            len(odd),
            f"{len(store):,}",
            store.ids([worst])[0],
            target,
            away[worst],
            store.properties[target].unit,
        )


def warn_of_contradictions(run: Run, metrics: dict, store: Store) -> None:
    """Warn where forces were learned but cannot be the derivatives of the energies.

    Energies that are predicted then change otherwise than the labels: with another sign where the
    forces are gradients, by another factor where the units differ.
    """
    found, forces = predictions(run), run.settings.forces
    if found is None or forces is None or found.true.std() == 0:
        return
    with store.open() as h5:
        typical = float(np.abs(h5[f"properties/{forces}"][:]).mean())
    slope = np.polyfit(found.true, found.predicted, 1)[0]
    if metrics["parts"][found.part]["forces"]["mae"] < LEARNED * typical and not 0.5 < slope < 2:
        log.warning(
            "forces fit, but predicted energies change by %.2g where the labels change by 1: "
            "forces with the wrong sign (gradients), or energies and forces in different units?",
            slope,
        )
