"""Raw files made with real calculators, in the upstream formats.

GFN2-xTB (tblite) for molecules, EMT (ase) for metals. The converters cannot tell these files from
the real ones. They make the demo scale, and, with ``model``, the C20 trajectories that stand in for
the paper's unpublished ones.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from schnet.data.raw_files import MADE_HERE, source_record

#: kinds of data whose making several processes can share; a trajectory is one process
PARALLEL = ("molecules", "c20")


def processes(count: int) -> ProcessPoolExecutor:
    """Fresh processes: a forked one would inherit OpenMP's threads and hang in tblite."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def generate(
    dataset: str, kind: str, folder, *, workers: int = 1, model: str | None = None, **options
) -> list[dict]:
    """Make the raw files of a data set.

    Args:
        dataset: its name.
        kind: molecules, trajectory, isomers, crystals or c20 (``reference:`` in sources.yaml).
        folder: where the files go.
        workers: processes that share the work.
        model: model file that drives the trajectories of c20 instead of GFN2-xTB.
        options: how many structures, frames and so on (``generate:`` in the scale files).

    Returns:
        One record per file, see `schnet.data.raw_files.source_record`.

    Raises:
        SchNetError: a molecule cannot be built, or its calculation does not converge.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # one process per core instead
    from schnet.reference import crystals, molecules, trajectories

    makers: dict[str, Callable] = {
        "molecules": molecules.make,
        "trajectory": trajectories.make_md17,
        "isomers": trajectories.make_iso17,
        "c20": trajectories.make_c20,
        "crystals": crystals.make,
    }
    if kind == "c20" and model:
        options["model"] = model
    method, files = makers[kind](dataset, folder, workers=workers, **options)
    return [source_record(f, method, MADE_HERE) for f in files]
