"""Damage of any kind to raw files: they are converted, or refused with one sentence."""

import json

import numpy as np
import pytest
from ase.build import bulk
from test_convert import (
    METHANE,
    cif,
    foreign_database,
    replace_in_archive,
    write_crystals,
    write_iso17,
    write_md17,
    write_qm9,
)

from schnet.data import c20, iso17, materials_project, md17, qm9
from schnet.errors import SchNetError

TRAJECTORY = """2
Properties=species:S:1:pos:R:3:forces_kcal:R:3 energy_kcal=-1.5 pbc="F F F"
C 0.0 0.0 0.0 0.1 0.2 0.3
C 1.4 0.0 0.0 -0.1 -0.2 -0.3
"""
WORDS = [b"", b"nan", b"-1", b"1e999", b"\n", b"\x00", b"\xff", b"[", b'"', b"0", b"x" * 50]


def damaged(content, rng):
    """The content with a piece cut out, overwritten, doubled or cut off."""
    at, length = int(rng.integers(len(content))), int(rng.geometric(0.1))
    piece = content[at : at + length]
    new = [WORDS[rng.integers(len(WORDS))], piece * 2, rng.bytes(length), b""]
    kind = int(rng.integers(5))
    return content[:at] if kind == 4 else content[:at] + new[kind] + content[at + length :]


def damaged_file(folder, rng):
    """Damage a file of the folder itself."""
    file = sorted(p for p in folder.iterdir() if p.is_file())[0]
    file.write_bytes(damaged(file.read_bytes(), rng))


def fuzz_qm9(folder, rng):
    write_qm9(folder, [damaged(METHANE.encode(), rng).decode("utf-8", "replace")])
    if rng.random() < 0.3:
        file = folder / ["atomref.txt", "uncharacterized.txt"][rng.integers(2)]
        file.write_bytes(damaged(file.read_bytes(), rng))


def fuzz_md17(folder, rng):
    odd = [np.zeros(0), np.array("x"), np.ones((3, 3, 3), bool), np.array(None), np.full(6, np.inf)]
    arrays = {"zREF"[rng.integers(4)]: odd[rng.integers(len(odd))]} if rng.random() < 0.5 else {}
    write_md17(folder, **{k: v for k, v in arrays.items() if v.dtype != object})


def fuzz_iso17(folder, rng):
    archive = write_iso17(folder)
    name = ["validation_ids.txt", "test_within.db", "reference.db"][rng.integers(3)]
    content = b"2\n5\n" if name.endswith("txt") else foreign_database(folder / "foreign.db")
    replace_in_archive(archive, name, damaged(content, rng))


def fuzz_c20(folder, rng):
    (folder / "c20_trajectory_0.extxyz").write_bytes(damaged(TRAJECTORY.encode(), rng))


def fuzz_crystals(folder, rng):
    item = {"material_id": "mp-1", "structure": cif(bulk("Cu")), "formation_energy_per_atom": 0.1}
    if rng.random() < 0.5:
        text = damaged(item["structure"].encode(), rng).decode("utf-8", "replace")
        write_crystals(folder, [item | {"structure": text}])
    else:
        lines = damaged((json.dumps(item) + "\n").encode(), rng)
        (folder / materials_project.LIVE).write_bytes(lines)


MAKERS = {
    qm9: fuzz_qm9,
    md17: fuzz_md17,
    iso17: fuzz_iso17,
    c20: fuzz_c20,
    materials_project: fuzz_crystals,
}


@pytest.mark.parametrize("module", MAKERS, ids=lambda module: module.__name__)
def test_damaged_raw_files(module, tmp_path):
    rng = np.random.default_rng(0)
    name = "md17_ethanol" if module is md17 else module.__name__.rpartition(".")[2]
    for k in range(25):
        raw = tmp_path / str(k)
        raw.mkdir()
        MAKERS[module](raw, rng)
        if rng.random() < 0.3:
            damaged_file(raw, rng)
        out = tmp_path / f"{k}.h5"
        try:
            module.convert(raw, out, name=name, about={})
        except SchNetError as error:
            assert "\n" not in str(error) and not out.exists()
        assert not list(tmp_path.glob(".*")) and not list(raw.glob(".*"))
