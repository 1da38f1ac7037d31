"""What can be said of raw files by counting: how many structures, of which elements.

A mirror may hold a slice of a data set. Counting shows it even where nobody says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from schnet.data.raw_files import MADE_HERE
from schnet.data.store import Structure
from schnet.errors import DataError

#: keys of the notes
STRUCTURES = "structures in the raw files"
PUBLISHED = "structures published upstream"
ELEMENTS = "elements"
ABSENT = "elements published upstream and absent here"
FORMULAS = "different formulas"


class Census:
    """Counts structures while a converter draws them, and compares with what upstream publishes.

    Args:
        sources: the records of sources.json; the number of data made here is compared with nothing.
        upstream: entry of workflow/sources.yaml, of which ``structures``, ``elements`` and
            ``formula`` are used.

    Attributes:
        notes: for the converted file; complete when the last structure was drawn.
    """

    def __init__(self, sources: list[dict], upstream: dict | None = None):
        made = any(s.get("checksum_from") == MADE_HERE for s in sources)
        self._published = {} if made or upstream is None else upstream
        self._formula = None
        if upstream and "formula" in upstream:
            self._formula = np.sort(Atoms(upstream["formula"]).numbers)
        self.notes: dict = {}

    def count(self, structures: Iterable[Structure]) -> Iterator[Structure]:
        """The same structures, counted.

        Raises:
            DataError: one has another formula than all of the data set have.
        """
        seen = np.zeros(len(chemical_symbols), dtype=bool)
        number = 0
        for structure in structures:
            z = np.asarray(structure.atomic_numbers)
            if self._formula is not None and not np.array_equal(np.sort(z), self._formula):
                raise DataError(
                    f"{structure.id}: {Atoms(z).symbols.get_chemical_formula()} instead of "
                    f"{Atoms(self._formula).symbols.get_chemical_formula()}: the file is of "
                    "another molecule"
                )
            seen[z] = True
            number += 1
            yield structure
        self.notes[STRUCTURES] = number
        self.notes[ELEMENTS] = ", ".join(chemical_symbols[z] for z in np.flatnonzero(seen))
        if "structures" in self._published:
            self.notes[PUBLISHED] = self._published["structures"]
        absent = [e for e in self._published.get("elements", []) if not seen[atomic_numbers[e]]]
        if absent:
            self.notes[ABSENT] = ", ".join(absent)


def sentences(notes_of: dict[str, dict]) -> list[str]:
    """What a table should say of data sets that are not the whole of what upstream publishes.

    Args:
        notes_of: title of a data set -> notes of its converted file.
    """
    found = []
    slices = [
        f"{title} {notes[STRUCTURES]:,} of {notes[PUBLISHED]:,}"
        for title, notes in notes_of.items()
        if STRUCTURES in notes and notes[STRUCTURES] < notes.get(PUBLISHED, 0)
    ]
    if slices:
        found.append(f"Structures here, of those published upstream: {'; '.join(slices)}.")
    for title, notes in notes_of.items():
        if notes.get(ABSENT):
            found.append(f"{title}: no structure contains {notes[ABSENT]}.")
        if FORMULAS in notes and notes[FORMULAS] == notes.get(STRUCTURES):
            found.append(f"{title}: one structure per formula, no polymorphs.")
    return found
