"""Converters: right files become what they say, wrong ones are refused and leave nothing behind."""

import bz2
import io
import json
import platform
import shutil
import sqlite3
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from ase.build import bulk
from conftest import ROOT

from schnet.data import c20, iso17, materials_project, md17, qm9
from schnet.data.census import sentences
from schnet.data.splits import make_split
from schnet.data.store import Store, Structure, write_store
from schnet.data.structures import load
from schnet.errors import DataError
from schnet.workflow import find_workflow, load_sources

METHANE = "\n".join(
    [
        "5",
        "gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t"
        "0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t",
        "C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689",
        "H\t 0.002150416\t-0.0060313176\t 1.9761204*^-6\t 0.133921",
        "H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922",
        "H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923",
        "H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923",
        "1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788",
        "C\tC\t",
        "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4",
        "",
    ]
)


def write_qm9(folder, texts, excluded=("3",)):
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as tar:
        for k, text in enumerate(texts):
            info = tarfile.TarInfo(f"dsgdb9nsd_{k + 1:06d}.xyz")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    (folder / "uncharacterized.txt").write_text(
        "header\n" + "".join(f"   {e}  CC  C\n" for e in excluded)
    )
    (folder / "atomref.txt").write_text(
        "H 0.000000 -0.500273 -0.498857 -0.497912 -0.510927 2.981\n"
        "C 0.0 -37.846772 -37.845355 -37.844411 -37.861317 2.981\n"
    )
    return folder


# ---- converters ----------------------------------------------------------------------------------
def test_qm9_values_units_exponents_and_removal(tmp_path):
    texts = [METHANE.replace("gdb 1", f"gdb {k}") for k in (1, 2, 3, 4)]
    notes = qm9.convert(
        write_qm9(tmp_path / "raw", texts), tmp_path / "qm9.h5", name="qm9", about={}
    )
    store = Store(tmp_path / "qm9.h5")
    assert (
        store.ids().tolist() == ["1", "2", "4"] and notes["uncharacterized molecules removed"] == 1
    )
    s = store.structure(0)
    assert s.atomic_numbers.tolist() == [6, 1, 1, 1, 1]
    assert s.positions[1, 2] == 1.9761204e-6
    assert s.properties["U0"] == pytest.approx(-40.47893 * 27.211386)
    assert s.properties["zpve"] == pytest.approx(0.044749 * 27211.386)
    assert s.properties["Cv"] == 6.469 and store.properties["alpha"].unit == "Bohr^3"
    assert (
        store.atomrefs["U0"][6] == pytest.approx(-37.846772 * 27.211386)
        and store.atomrefs["U0"][7] == 0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("C\tC\t\nInChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4\n", ""), "line 9: missing"),
        (("5\ngdb", "4\ngdb"), "line 10: one too many; a molecule of 4 atoms has 9 lines"),
        (("1.9761204*^-6", "nan"), "line 4: a coordinate is not finite"),
        (("1.9761204*^-6", "oops"), "line 4: a coordinate is not a number"),
        (("-40.47893", "?"), "line 2"),
        (("5\ngdb", "\ngdb"), "line 1: the number of atoms"),
    ],
)
def test_damaged_molecule_files_name_the_line(tmp_path, change, message):
    raw = write_qm9(tmp_path / "raw", [METHANE.replace(*change)])
    with pytest.raises(DataError, match=message) as error:
        qm9.convert(raw, tmp_path / "qm9.h5", name="qm9", about={})
    assert "dsgdb9nsd_000001.xyz" in str(error.value)
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".*"))


def test_molecule_twice(tmp_path):
    raw = write_qm9(tmp_path / "raw", [METHANE, METHANE])
    with pytest.raises(DataError, match="structure 1: occurs twice"):
        qm9.convert(raw, tmp_path / "qm9.h5", name="qm9", about={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("H 0.0", "X 0.0"), "atomref.txt: no line for H, an element of molecule 1"),
        (("-0.500273", "nan"), "atomref.txt: H: 'nan' is not a number"),
        (("-37.846772", "?"), "atomref.txt: C: '\\?' is not a number"),
    ],
)
def test_damaged_single_atom_energies(tmp_path, change, message):
    raw = write_qm9(tmp_path / "raw", [METHANE])
    text = (raw / "atomref.txt").read_text()
    (raw / "atomref.txt").write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        qm9.convert(raw, tmp_path / "qm9.h5", name="qm9", about={})


def test_truncated_tar_is_refused(tmp_path):
    texts = [METHANE.replace("gdb 1", f"gdb {k}") for k in range(1, 201)]
    raw = write_qm9(tmp_path / "raw", texts)
    archive = raw / "dsgdb9nsd.xyz.tar.bz2"
    content = archive.read_bytes()
    for damaged in (
        content[: len(content) // 2],
        bz2.compress(bz2.decompress(content)[:20000])[:-10],
        b"<html>403</html>",
    ):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="fetch again"):
            qm9.convert(raw, tmp_path / "qm9.h5", name="qm9", about={})
    assert not (tmp_path / "qm9.h5").exists()


def write_md17(folder, **change):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {
        "z": np.array([8, 1, 1]),
        "R": rng.normal(size=(6, 3, 3)) * 2,
        "E": rng.normal(size=(6, 1)),
        "F": rng.normal(size=(6, 3, 3)),
    } | change
    np.savez(folder / "md17_ethanol.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


def test_md17_round_trip(tmp_path):
    raw = write_md17(tmp_path / "raw")
    md17.convert(raw, tmp_path / "e.h5", name="md17_ethanol", about={})
    store = Store(tmp_path / "e.h5")
    with np.load(raw / "md17_ethanol.npz") as f:
        assert store.structure(3).properties["forces"] == pytest.approx(f["F"][3])
        data = load(store, np.array([4, 1]), ["energy", "forces"])
        assert data.properties["energy"].tolist() == f["E"][[4, 1], 0].tolist()
        assert data.properties["forces"].numpy() == pytest.approx(f["F"][[4, 1]].reshape(-1, 3))


def test_md17_without_forces_or_with_nan(tmp_path):
    with pytest.raises(DataError, match="'F' \\(forces\\)"):
        md17.convert(
            write_md17(tmp_path / "a", F=None), tmp_path / "e.h5", name="md17_ethanol", about={}
        )
    bad = np.zeros((6, 1))
    bad[4] = np.nan
    with pytest.raises(DataError, match="'E'.*frame 4"):
        md17.convert(
            write_md17(tmp_path / "b", E=bad), tmp_path / "e.h5", name="md17_ethanol", about={}
        )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "md17_ethanol.npz").write_text("<html>")
    with pytest.raises(DataError, match="not a NumPy archive"):
        md17.convert(tmp_path / "c", tmp_path / "e.h5", name="md17_ethanol", about={})
    assert not (tmp_path / "e.h5").exists()


def of_ethanol(raw, out, **arrays):
    """Convert a trajectory as `schnet data convert md17_ethanol` does."""
    upstream = load_sources(find_workflow(ROOT))["md17_ethanol"]
    raw = write_md17(raw, **arrays)
    return md17.convert(raw, out, name="md17_ethanol", about={}, upstream=upstream)


def test_md17_of_another_molecule(tmp_path):
    ethanol = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
    for z, formula in ((np.append(ethanol[:8], 6), "C3H5O"), (np.array([8, 1, 1]), "H2O")):
        r = np.random.default_rng(0).normal(size=(6, len(z), 3)) * 3
        with pytest.raises(DataError, match=f"ethanol-1: {formula} instead of C2H6O"):
            of_ethanol(tmp_path / "raw", tmp_path / "e.h5", z=z, R=r, F=r)
    r = np.random.default_rng(0).normal(size=(6, 9, 3)) * 3
    of_ethanol(tmp_path / "raw", tmp_path / "e.h5", z=ethanol, R=r, F=r)
    assert len(Store(tmp_path / "e.h5")) == 6


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.array([8, 1, np.nan])}, "array 'z': nan of atom 2 is no atomic number"),
        ({"z": np.array([6.7, 1, 1])}, "array 'z': 6.7 of atom 0 is no atomic number"),
        ({"z": np.array([8, 0, 1])}, "array 'z': 0 of atom 1 is no atomic number"),
        ({"z": np.array(["O", "H", "H"])}, "array 'z': holds no numbers"),
        ({"z": np.array(8)}, "shapes do not fit"),
        ({"E": np.array([["a"]] * 6)}, "array 'E': holds no numbers"),
        ({"F": np.ones((6, 3, 3)) * 1j}, "array 'F': holds no numbers"),
        ({"R": np.zeros((0, 3, 3)), "F": np.zeros((0, 3, 3)), "E": np.zeros(0)}, "no structure"),
        ({"R": np.zeros((6, 3, 3))}, "ethanol-1: two atoms overlap"),
    ],
)
def test_md17_arrays_that_cannot_be_meant(tmp_path, arrays, message):
    raw = write_md17(tmp_path / "raw", **arrays)
    with pytest.raises(DataError, match=message):
        md17.convert(raw, tmp_path / "e.h5", name="md17_ethanol", about={})
    assert not (tmp_path / "e.h5").exists()


def test_md17_array_without_archive(tmp_path):
    with open(tmp_path / "md17_ethanol.npz", "wb") as f:
        np.save(f, np.zeros(3))
    with pytest.raises(DataError, match="not a NumPy archive"):
        md17.convert(tmp_path, tmp_path / "e.h5", name="md17_ethanol", about={})


def write_iso17(folder, validation="2\n5\n", others=3):
    """An archive of the upstream layout; nothing unpacked lies beside it."""
    from ase import Atoms
    from ase.db import connect

    work = folder / "work"
    work.mkdir()
    for name, count in (("reference", 6), ("test_within", 2), ("test_other", others)):
        with connect(work / f"{name}.db") as database:
            for k in range(count):
                database.write(
                    Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.01 * k]]),
                    total_energy=-3.0 - k,
                    data={"atomic_forces": np.ones((2, 3)) * k},
                )
    (work / "validation_ids.txt").write_text(validation)
    with tarfile.open(folder / "iso17.tar.gz", "w:gz") as tar:
        tar.add(work, "iso17")
    shutil.rmtree(work)
    return folder / "iso17.tar.gz"


def test_iso17_parts(tmp_path):
    write_iso17(tmp_path)
    iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
    store = Store(tmp_path / "iso17.h5")
    parts = make_split(store, n_train=3, n_validation=2, seed=0, strategy="predefined")
    assert set(store.ids(parts["validation"])) == {"reference-2", "reference-5"}
    assert (
        len(parts["train"]) == 3
        and len(parts["test_within"]) == 2
        and len(parts["test_other"]) == 3
    )
    assert store.structure(int(parts["test_other"][2])).properties["energy"] == -5.0


def test_iso17_follows_its_archive(tmp_path):
    """Nothing unpacked is left, of this conversion or of one that was killed."""

    def parts():
        iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
        store = Store(tmp_path / "iso17.h5")
        return [int((store.groups == k).sum()) for k in range(4)]

    write_iso17(tmp_path)
    assert parts() == [4, 2, 2, 3]
    write_iso17(tmp_path, validation="1\n", others=1)
    dead = tmp_path / f".iso17.{platform.node()}-{2**30}.tmp"
    dead.mkdir()
    (dead / "reference.db").write_bytes(b"half")
    assert parts() == [5, 1, 2, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iso17.h5", "iso17.tar.gz"]


def test_iso17_placed_by_hand(tmp_path):
    with tarfile.open(write_iso17(tmp_path)) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "iso17.tar.gz").unlink()
    iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
    assert len(Store(tmp_path / "iso17.h5")) == 11 and (tmp_path / "iso17").is_dir()


def test_rows_of_a_database_are_not_all_in_memory(tmp_path, monkeypatch):
    from ase import Atoms
    from ase.db import connect

    forces = np.random.default_rng(0).normal(size=(2000, 3))  # 48 kB
    with connect(tmp_path / "a.db") as database:
        for k in range(100):
            atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
            database.write(atoms, total_energy=float(k), data={"atomic_forces": forces})
    monkeypatch.setattr(iso17, "BATCH", 7)
    tracemalloc.start()
    found = [
        (row, structure.properties["energy"]) for row, structure in iso17.rows(database.filename)
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(k + 1, float(k)) for k in range(100)] and peak < 30 * forces.nbytes


def replace_in_archive(archive, name, content):
    """The archive with another content of one file."""
    with tarfile.open(archive) as tar:
        tar.extractall(archive.parent / "work", filter="data")
    (archive.parent / "work" / "iso17" / name).write_bytes(content)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(archive.parent / "work" / "iso17", "iso17")
    shutil.rmtree(archive.parent / "work")


def foreign_database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table systems (id integer primary key, name text)")
        connection.execute("create table information (name text, value text)")
        connection.execute("insert into systems values (1, 'x')")
    connection.close()
    return path.read_bytes()


def test_iso17_with_foreign_content(tmp_path):
    foreign = foreign_database(tmp_path / "foreign.db")
    for name, content, message in (
        ("validation_ids.txt", b"1\n2.5\n", "validation_ids.txt: not a list of row numbers"),
        ("validation_ids.txt", b"\xff\xfe", "validation_ids.txt: not a list of row numbers"),
        ("test_within.db", foreign, "test_within.db: not an ASE database"),
        (
            "test_within.db",
            b"SQLite format 3\0" + bytes(200),
            "test_within.db: not an ASE database",
        ),
        ("test_within.db", b"{}", "test_within.db: not an ASE database"),
    ):
        replace_in_archive(write_iso17(tmp_path), name, content)
        with pytest.raises(DataError, match=message) as error:
            iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
        assert "\n" not in str(error.value)


def test_iso17_archive_that_is_damaged_or_reaches_outside(tmp_path):
    archive = write_iso17(tmp_path)
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1  # the checksum at the end of a gzip stream; every member can still be read
    for damaged in (bytes(content), bytes(content[: len(content) // 2]), b"<html>403</html>"):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged or cut off"):
            iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside.txt"), io.BytesIO())
    with pytest.raises(DataError, match="damaged or cut off"):
        iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("sources.json"), io.BytesIO())
    with pytest.raises(DataError, match="holds no folder iso17"):
        iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iso17.tar.gz"]


def write_crystals(folder, items):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / materials_project.FROZEN, "w") as archive:
        archive.writestr("mp.2018.6.1.json", json.dumps(items))
    return folder


def cif(atoms):
    from pymatgen.io.ase import AseAtomsAdaptor

    return str(AseAtomsAdaptor.get_structure(atoms).to(fmt="cif"))


def test_crystals_with_neighbours_and_isolated_atoms(tmp_path):
    lonely = bulk("Xe", "fcc", a=12.0)
    items = [
        {"material_id": f"mp-{k}", "structure": cif(a), "formation_energy_per_atom": -0.1 * k}
        for k, a in enumerate((bulk("Cu"), lonely, bulk("NaCl", "rocksalt", a=5.6)))
    ]
    notes = materials_project.convert(
        write_crystals(tmp_path / "raw", items), tmp_path / "mp.h5", name="mp", about={}, cutoff=5.0
    )
    store = Store(tmp_path / "mp.h5")
    assert (
        store.ids().tolist() == ["mp-0", "mp-2"]
        and notes["dropped: an atom without neighbour"] == 1
    )
    data = load(store, np.array([1, 0]), ["formation_energy_per_atom"], cutoff=5.0)
    n = sum(
        0 < np.linalg.norm((np.array(s) - 4) @ bulk("Cu").cell.array) < 5
        for s in np.ndindex(9, 9, 9)
    )
    assert data.n_neighbours[-1].item() == n
    assert data.n_neighbours[0].item() == 6 + 12 + 8  # rock salt, at 2.80, 3.96 and 4.85 Å


def pycifrw(text):
    """The CIF text as the program PyCifRW writes it, the other style of the published file."""
    comment = "#\\#CIF1.1\n" + "#" * 40 + "\n\n"
    head, sites = text.split(" _atom_site_occupancy\n")
    sites = "".join(f"   {line[:-1]} 0  .  1\n" for line in sites.splitlines() if line)
    more = " _atom_site_attached_hydrogens\n _atom_site_B_iso_or_equiv\n"
    return comment + head + more + " _atom_site_occupancy\n" + sites


def test_crystals_are_read_as_ase_reads_them(monkeypatch):
    """To the last bit: digests of data sets depend on it."""
    from ase.io import cif as ase_cif
    from ase.io import read

    rng = np.random.default_rng(0)
    texts = []
    for k in range(20):
        atoms = bulk("NaCl", "rocksalt", a=5.6).repeat((1, 2, 1 + k % 2))
        atoms.set_cell(rng.normal(0, 1, (3, 3)) + 6 * np.eye(3), scale_atoms=True)
        atoms.positions += rng.normal(0, 2, atoms.positions.shape)
        texts += [cif(atoms), pycifrw(cif(atoms))]
    other = cif(bulk("Cu", cubic=True)).replace("'x, y, z'", "'x, y, z'\n  2  'x, y+1/2, z+1/2'")
    expected = [read(io.StringIO(text), format="cif") for text in [*texts, other]]
    with monkeypatch.context() as without_ase:
        without_ase.setattr(ase_cif, "read_cif", lambda *_: pytest.fail("the slow reader was used"))
        found = [materials_project.parse_cif(text, "") for text in texts]
    found.append(materials_project.parse_cif(other, ""))  # not all atoms are in this text
    for (z, r, cell), atoms in zip(found, expected, strict=True):
        assert np.array_equal(z, atoms.numbers) and np.array_equal(r, atoms.positions)
        assert np.array_equal(cell, atoms.cell.array)


def test_crystals_that_cannot_be_meant(tmp_path):
    with pytest.raises(DataError, match="mp-9: CIF text"):
        materials_project.convert(
            write_crystals(
                tmp_path / "a",
                [{"material_id": "mp-9", "structure": "data_x", "formation_energy_per_atom": 0}],
            ),
            tmp_path / "m.h5",
            name="m",
            about={},
        )
    text = cif(bulk("NaCl", "rocksalt", a=5.6))
    last = text.splitlines()[-1]
    with pytest.raises(DataError, match="mp-8: CIF text cannot be read .*Wrong number"):
        materials_project.parse_cif(text.replace(last, last + "  1"), "mp-8")
    flat = Structure("flat", np.array([29]), np.zeros((1, 3)), {}, cell=np.diag([3.0, 3.0, 0.0]))
    with pytest.raises(DataError, match="flat: the cell has no volume"):
        write_store(tmp_path / "m.h5", [flat], {}, name="m", cutoff=5.0)
    shared = Structure("shared", np.array([29, 29]), np.zeros((2, 3)), {}, cell=3.0 * np.eye(3))
    shared.positions[1] = [2.98, 0, 0]  # 0.02 Å from an image of the other
    with pytest.raises(DataError, match="shared: two atoms overlap \\(0.02 Å apart\\)"):
        write_store(tmp_path / "m.h5", [shared], {}, name="m", cutoff=5.0)
    cubic = Structure("cubic", np.array([29]), np.zeros((1, 3)), {}, cell=3.0 * np.eye(3))
    with pytest.raises(DataError, match="cubic: has a cell; crystals are stored with a cutoff"):
        write_store(tmp_path / "m.h5", [cubic], {}, name="m")
    raw = write_crystals(
        tmp_path / "b",
        [{"material_id": "mp-1", "structure": cif(bulk("Cu")), "formation_energy_per_atom": 0.0}]
        * 50,
    )
    content = (raw / materials_project.FROZEN).read_bytes()
    (raw / materials_project.FROZEN).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        materials_project.convert(raw, tmp_path / "m.h5", name="m", about={})
    assert not (tmp_path / "m.h5").exists()


def test_sources_say_which_crystals_are_meant(tmp_path):
    """A live file left behind by an earlier configuration is not read."""
    item = {"material_id": "mp-1", "structure": cif(bulk("Cu")), "formation_energy_per_atom": 0.1}
    raw = write_crystals(tmp_path / "raw", [item])
    live = {**item, "material_id": "mp-2"}
    (raw / materials_project.LIVE).write_text(json.dumps(live) + "\n")
    for file, material in ((materials_project.FROZEN, "mp-1"), (materials_project.LIVE, "mp-2")):
        about = {"sources": [{"file": file}]}
        materials_project.convert(raw, tmp_path / "m.h5", name="m", about=about)
        assert Store(tmp_path / "m.h5").ids().tolist() == [material]
    with pytest.raises(DataError, match=r"both .* no sources.json"):
        materials_project.convert(raw, tmp_path / "m.h5", name="m", about={})
    (raw / materials_project.FROZEN).unlink()
    with pytest.raises(DataError, match="named in sources.json and missing"):
        about = {"sources": [{"file": materials_project.FROZEN}]}
        materials_project.convert(raw, tmp_path / "m.h5", name="m", about=about)


def test_c20_without_energies(tmp_path):
    (tmp_path / "c20_trajectory_0.extxyz").write_text(
        "1\nProperties=species:S:1:pos:R:3\nC 0 0 0\n"
    )
    with pytest.raises(DataError, match=r"c20_trajectory_0.extxyz"):
        c20.convert(tmp_path, tmp_path / "c.h5", name="c20", about={})


# ---- facts ---------------------------------------------------------------------------------------
def test_slice_of_a_data_set_is_recognised(tmp_path):
    texts = [METHANE.replace("gdb 1", f"gdb {k}") for k in (1, 2, 3)]
    raw = write_qm9(tmp_path / "raw", texts)

    def facts(upstream, **about):
        qm9.convert(raw, tmp_path / "q.h5", name="qm9", about=about, upstream=upstream)
        return sentences({"QM9": Store(tmp_path / "q.h5").notes})

    upstream = {"structures": 1000, "elements": ["H", "C", "F"]}
    assert facts(upstream) == [
        "Structures here, of those published upstream: QM9 3 of 1,000.",
        "QM9: no structure contains F.",
    ]
    assert Store(tmp_path / "q.h5").notes["elements"] == "H, C"
    assert facts({"structures": 3, "elements": ["H", "C"]}) == []
    # nothing upstream to compare with
    assert facts(upstream, sources=[{"file": "x", "checksum_from": "made here"}]) == []


def test_crystals_without_polymorphs(tmp_path):
    entry = {"structure": cif(bulk("Cu")), "formation_energy_per_atom": 0.0}
    super_cell = entry | {"structure": cif(bulk("Cu").repeat(2))}
    salt = entry | {"structure": cif(bulk("NaCl", "rocksalt", a=5.6))}

    def facts(*entries):
        items = [{"material_id": f"mp-{k}", **e} for k, e in enumerate(entries)]
        raw = write_crystals(tmp_path / f"raw{len(entries)}", items)
        notes = materials_project.convert(raw, tmp_path / "m.h5", name="m", about={})
        return sentences({"MP": notes})

    assert facts(entry, salt) == ["MP: one structure per formula, no polymorphs."]
    assert facts(entry, salt, super_cell) == []
