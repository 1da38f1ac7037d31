"""Raw files with real calculators, in the upstream formats: GFN2-xTB (tblite) for molecules, EMT (ase) for metals.

The converters cannot tell these files from the real ones. They make the demo scale, and, with ``model``,
the C20 trajectories that stand in for the paper's unpublished ones.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from schnet.files import file_digest


def processes(count: int) -> ProcessPoolExecutor:
    """Fresh processes: a forked one would inherit OpenMP's threads as locked locks and hang in tblite."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def generate(dataset: str, kind: str, folder, *, workers: int = 1, model: str | None = None, **options) -> list[dict]:
    """Make the raw files of ``dataset`` in ``folder``; returns their records for sources.json.

    kind: molecules, trajectory, isomers, crystals or c20; options: how many (the scale files).
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # one process per core instead
    from schnet.reference import crystals, molecules, trajectories

    maker = {
        "molecules": molecules.make,
        "trajectory": trajectories.make_md17,
        "isomers": trajectories.make_iso17,
        "c20": trajectories.make_c20,
        "crystals": crystals.make,
    }[kind]
    if kind == "c20" and model:
        options["model"] = model
    method, files = maker(dataset, folder, workers=workers, **options)
    return [{"file": f.name, "url": method, "bytes": f.stat().st_size, "sha256": file_digest(f), "checksum_from": "made here"} for f in files]
