"""Fetch, convert, split: right input arrives, wrong input is refused and leaves nothing behind."""

import bz2
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
import zipfile

import h5py
import numpy as np
import pytest
import yaml
from ase.build import bulk
from conftest import write_molecules

from schnet.data import c20, iso17, materials_project, md17, qm9
from schnet.data.census import sentences
from schnet.data.fetch import FIRST_FETCH, fetch, fetch_file
from schnet.data.neighbours import write_neighbours
from schnet.data.splits import load_split, make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.data.structures import load
from schnet.errors import ConfigError, DataError, SchNetError
from schnet.files import file_digest, write_json

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


def test_truncated_tar_is_refused(tmp_path):
    raw = write_qm9(tmp_path / "raw", [METHANE] * 200)
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
    """Another archive, or an extraction that broke off, is unpacked again."""

    def parts():
        iso17.convert(tmp_path, tmp_path / "iso17.h5", name="iso17", about={})
        store = Store(tmp_path / "iso17.h5")
        return [int((store.groups == k).sum()) for k in range(4)]

    write_iso17(tmp_path)
    assert parts() == [4, 2, 2, 3]
    write_iso17(tmp_path, validation="1\n", others=1)
    assert parts() == [5, 1, 2, 1]
    (tmp_path / "iso17" / ".complete").unlink()
    (tmp_path / "iso17" / "test_within.db").write_bytes(b"half")
    assert parts() == [5, 1, 2, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iso17", "iso17.h5", "iso17.tar.gz"]


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


@pytest.fixture
def crystals(tmp_path):
    """A store of three crystals, of which the last is a wide one."""
    structures = [
        Structure(f"c{k}", a.numbers, a.positions, {"energy": float(k)}, a.cell.array)
        for k, a in enumerate(
            (bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6), bulk("Ar", "fcc", a=6.0))
        )
    ]
    properties = {"energy": Property("eV", "", kind="energy")}
    write_store(tmp_path / "c.h5", structures, properties, name="c", cutoff=5.0)
    return Store(tmp_path / "c.h5")


def test_neighbours_from_a_file_are_those_computed(crystals, tmp_path):
    path = tmp_path / "n.h5"
    n_pairs = write_neighbours(crystals, path, 4.5)
    indices = np.array([2, 0, 1])
    computed, read = (
        load(crystals, indices, [], cutoff=4.5, neighbours=file) for file in (None, path)
    )
    assert n_pairs == len(read.pair_i) > 20
    for name in ("pair_i", "pair_j", "pair_shift", "pair_start", "n_neighbours", "cell"):
        assert (getattr(read, name) == getattr(computed, name)).all()
    assert len(load(crystals, [1], [], cutoff=4.5, neighbours=path).pair_i) == int(
        read.pair_count[2]
    )


def test_neighbours_of_other_data_or_another_cutoff_are_refused(crystals, tmp_path):
    path = tmp_path / "n.h5"
    with pytest.raises(DataError, match=r"no such file of neighbours; make it with `schnet data"):
        load(crystals, [0], [], cutoff=4.5, neighbours=path)
    write_neighbours(crystals, path, 4.5)
    with pytest.raises(DataError, match=r"within 4.5 Å, the model wants 5.0 Å"):
        load(crystals, [0], [], cutoff=5.0, neighbours=path)
    other = write_molecules(tmp_path / "t.h5", 5)
    with pytest.raises(DataError, match="belongs to other data"):
        load(other, [0], [], cutoff=4.5, neighbours=path)
    with pytest.raises(DataError, match="not a file of neighbours"):
        load(crystals, [0], [], cutoff=4.5, neighbours=other.path)


def test_an_atom_without_neighbours(crystals, tmp_path):
    """Refused in a crystal, allowed in a molecule, where nothing is divided by zero."""
    with pytest.raises(DataError, match=r"structure c2: atom 0 has no neighbour within 4.0 Å"):
        write_neighbours(crystals, tmp_path / "n.h5", 4.0)
    assert not (tmp_path / "n.h5").exists()
    apart = Structure("far", np.array([2, 2, 2]), np.diag([0.0, 3.0, 50.0]), {})
    write_store(tmp_path / "m.h5", [apart], {}, name="m")
    data = load(Store(tmp_path / "m.h5"), [0], [], cutoff=5.0)
    assert data.n_neighbours.tolist() == [1, 1, 1] and len(data.pair_i) == 1
    assert data.pair_shift is None


def test_neighbours_from_the_command_line(tmp_path, capsys):
    from schnet.cli import main

    store = write_molecules(tmp_path / "t.h5", 5)
    out = tmp_path / "n.h5"
    assert main(["data", "neighbours", str(store.path), str(out), "--cutoff", "2.5"]) == 0
    assert "pairs within 2.5 Å" in capsys.readouterr().out
    assert len(load(store, np.arange(5), [], cutoff=2.5, neighbours=out).pair_i) > 0


def test_digest_of_crystals_does_not_depend_on_neighbours(tmp_path):
    """Data sets keep the digest that they had when the lists were in the same file."""
    atoms = bulk("Cu", "fcc", a=3.6)
    crystal = Structure("cu", atoms.numbers, np.zeros((1, 3)), {"e": 1.5}, np.diag([3.0, 4.0, 5.0]))
    write_store(tmp_path / "c.h5", [crystal], {"e": Property("eV", "")}, name="c", cutoff=5.0)
    assert Store(tmp_path / "c.h5").digest.startswith("67fbc96c5df0fbd0")


def test_files_of_the_previous_layout_are_converted_again(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 5)
    with h5py.File(store.path, "a") as h5:
        h5.attrs["version"] = 1
    with pytest.raises(DataError, match="layout version 1.*convert again"):
        Store(store.path)


def test_forces_are_found_by_kind(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 5)
    assert store.forces_of("energy") == "forces" and store.forces_of("forces") is None
    with pytest.raises(ValueError, match="kind of a property"):
        Property("eV", "", kind="enregy")


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
    flat = Structure("flat", np.array([29]), np.zeros((1, 3)), {}, cell=np.diag([3.0, 3.0, 0.0]))
    with pytest.raises(DataError, match="flat: the cell has no volume"):
        write_store(tmp_path / "m.h5", [flat], {}, name="m", cutoff=5.0)
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


def test_store_refuses_incomplete_and_foreign_files(tmp_path):
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DataError, match="not an HDF5 file"):
        Store(tmp_path / "text.h5")
    with h5py.File(tmp_path / "half.h5", "w") as h5:
        h5["positions"] = [1]
    with pytest.raises(DataError, match="incomplete"):
        Store(tmp_path / "half.h5")
    with pytest.raises(DataError, match="no such data file"):
        Store(tmp_path / "absent.h5")


def test_unknown_property_names_the_nearest(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 5)
    with pytest.raises(DataError, match="did you mean 'energy'"):
        load(store, [0], ["enegry"])


def test_digest_follows_the_content(tmp_path):
    a, b, c = (
        write_molecules(tmp_path / f"{k}.h5", 5, seed=s) for k, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert a.digest == b.digest != c.digest


def test_nan_in_a_property_is_refused(tmp_path):
    s = Structure("x", np.array([1]), np.zeros((1, 3)), {"energy": np.nan})
    with pytest.raises(DataError, match="structure x: property 'energy' is not a finite number"):
        write_store(tmp_path / "n.h5", [s], {"energy": Property("eV", "")}, name="n")
    assert list(tmp_path.iterdir()) == []


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


# ---- splits --------------------------------------------------------------------------------------
def test_splits_are_exact_disjoint_seeded_and_nested(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 50)
    small, large = (make_split(store, n_train=n, n_validation=10, seed=3) for n in (15, 30))
    assert [len(v) for v in large.values()] == [10, 30, 10]
    assert sorted(np.concatenate(list(large.values())).tolist()) == list(range(50))
    assert (
        set(small["train"]) < set(large["train"])
        and (small["validation"] == large["validation"]).all()
    )
    assert (make_split(store, n_train=15, n_validation=10, seed=3)["train"] == small["train"]).all()
    assert (make_split(store, n_train=15, n_validation=10, seed=4)["train"] != small["train"]).any()


def test_split_by_trajectory_keeps_groups_apart(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 50, groups=5)
    parts = make_split(store, n_train=20, n_validation=10, seed=0, strategy="by_group")
    test = set(store.groups[parts["test"]])
    assert not test & set(store.groups[parts["train"]]) and not test & set(
        store.groups[parts["validation"]]
    )


def test_split_larger_than_the_data(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 20)
    with pytest.raises(DataError, match="the data set has 20"):
        make_split(store, n_train=15, n_validation=5, seed=0)


@pytest.mark.parametrize(("n_train", "n_validation"), [(0, 5), (-5, 5), (5, 0), (5, -1)])
@pytest.mark.parametrize("strategy", ["random", "by_group", "predefined"])
def test_split_without_structures_is_refused(tmp_path, n_train, n_validation, strategy):
    store = write_molecules(tmp_path / "t.h5", 20, groups=4)
    what = "n_train" if n_train < 1 else "n_validation"
    with pytest.raises(ConfigError, match=f"{what}: -?[0-9]+[:;] at least 1"):
        make_split(store, n_train=n_train, n_validation=n_validation, seed=0, strategy=strategy)


def test_split_of_other_data_is_refused(tmp_path):
    a, b = write_molecules(tmp_path / "a.h5", 20), write_molecules(tmp_path / "b.h5", 20, seed=1)
    save_split(tmp_path / "s.npz", a, make_split(a, n_train=10, n_validation=5, seed=0))
    assert len(load_split(tmp_path / "s.npz", a)["train"]) == 10
    with pytest.raises(DataError, match="belongs to other data"):
        load_split(tmp_path / "s.npz", b)
    (tmp_path / "t.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a split file"):
        load_split(tmp_path / "t.npz", a)


# ---- fetch ---------------------------------------------------------------------------------------
@pytest.fixture
def server(tmp_path):
    """A web server on loopback: files from a dictionary, ``fail`` replies 503 that often first."""
    state = {"files": {}, "fail": 0, "requests": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["requests"].append(self.path)
            if state["fail"]:
                state["fail"] -= 1
                return self.send_error(503)
            content = state["files"].get(self.path)
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + state.get("cut", 0)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()


def entry(server, *names, **more):
    return {"urls": [f"{server['url']}/{n}" for n in names], "mirror": "d/file.bin", **more}


def test_fetch_falls_through_urls_and_retries(server, tmp_path):
    server["files"]["/good"] = b"content"
    server["fail"] = 1
    record = fetch_file(
        "f",
        entry(server, "missing", "good", bytes=7, sha256=hashlib.sha256(b"content").hexdigest()),
        tmp_path,
        progress=False,
        wait=0.01,
    )
    assert (tmp_path / "f").read_bytes() == b"content" and record[
        "checksum_from"
    ] == "workflow/sources.yaml"
    before = len(server["requests"])
    fetch_file("f", entry(server, "good", bytes=7), tmp_path, progress=False)
    assert len(server["requests"]) == before  # there already


@pytest.mark.parametrize(
    ("content", "expected", "message"),
    [
        (b"<!DOCTYPE html><html>403 Forbidden", {}, "a web page came instead of data"),
        (b"short", {"bytes": 100}, "5 bytes instead of 100"),
        (b"wrong", {"md5": "0" * 32}, "md5 is"),
        (b"text", {"magic": "504b0304"}, "expected file type"),
    ],
)
def test_wrong_content_is_refused_and_removed(server, tmp_path, content, expected, message):
    server["files"]["/f"] = content
    with pytest.raises(DataError, match=message) as error:
        fetch_file("f", entry(server, "f", **expected), tmp_path, progress=False, wait=0.01)
    assert "by hand" in str(error.value) and list(tmp_path.iterdir()) == []


def test_connection_that_breaks_off_leaves_nothing(server, tmp_path):
    server["files"]["/f"], server["cut"] = b"x" * 100, 50
    with pytest.raises(DataError, match="could not be fetched"):
        fetch_file("f", entry(server, "f"), tmp_path, progress=False, wait=0.01)
    assert list(tmp_path.iterdir()) == []


def test_first_fetch_is_remembered_and_a_difference_refused(server, tmp_path):
    server["files"]["/f"] = b"one"
    assert (
        "recorded at first fetch"
        in fetch_file("f", entry(server, "f"), tmp_path, progress=False)["checksum_from"]
    )
    (tmp_path / "f").unlink()
    server["files"]["/f"] = b"two"
    with pytest.raises(DataError, match="sha256 is"):
        fetch_file("f", entry(server, "f"), tmp_path, progress=False, wait=0.01)


def test_hand_placed_file_needs_the_right_checksum(tmp_path):
    e = {"urls": [], "mirror": "d/f", "sha256": hashlib.sha256(b"good").hexdigest()}
    (tmp_path / "f").write_bytes(b"good")
    assert fetch_file("f", e, tmp_path)["url"] == "placed by hand"
    (tmp_path / "f").write_bytes(b"bad")
    with pytest.raises(DataError, match="delete the file"):
        fetch_file("f", e, tmp_path)


@pytest.mark.parametrize("remote", [False, True])
def test_mirror_with_its_own_checksums(server, tmp_path, remote):
    folder = tmp_path / "mirror" / "d"
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(b"slice")
    sums = f"{hashlib.sha256(b'slice').hexdigest()}  d/file.bin\n"
    (tmp_path / "mirror" / "SHA256SUMS").write_text(sums)
    server["files"] |= {"/m/d/file.bin": b"slice", "/m/SHA256SUMS": sums.encode()}
    e = {"urls": [], "mirror": "d/file.bin", "md5": "0" * 32, "bytes": 99}
    mirror = server["url"] + "/m" if remote else str(tmp_path / "mirror")
    assert (
        fetch_file("f", e, tmp_path / "out", mirror=mirror, progress=False)["checksum_from"]
        == "mirror"
    )
    (folder / "file.bin").write_bytes(b"other")
    server["files"]["/m/d/file.bin"] = b"other"
    (tmp_path / "out" / "f").unlink()
    with pytest.raises(DataError, match="sha256 is"):
        fetch_file("f", e, tmp_path / "out", mirror=mirror, progress=False, wait=0.01)


def test_faithful_mirror_is_upstream(tmp_path):
    """A mirror's own checksums do not make its files others than upstream's."""
    folder = tmp_path / "mirror" / "d"
    folder.mkdir(parents=True)
    (folder / "file.bin").write_bytes(b"content")
    sums = f"{hashlib.sha256(b'content').hexdigest()}  d/file.bin\n"
    (tmp_path / "mirror" / "SHA256SUMS").write_text(sums)
    mirror = str(tmp_path / "mirror")
    e = {"urls": [], "mirror": "d/file.bin"}
    published = {"md5": hashlib.md5(b"content").hexdigest(), "bytes": 7}
    for _ in range(2):  # fetched, then found there
        record = fetch_file("a", e | published, tmp_path / "out", mirror=mirror, progress=False)
        assert record["checksum_from"] == "workflow/sources.yaml" and record["upstream"] is True
    slices = fetch_file("b", e | {"md5": "0" * 32}, tmp_path / "out", mirror=mirror)
    assert slices["checksum_from"] == "mirror" and slices["upstream"] is False
    unknown = fetch_file("c", e | {"magic": b"con".hex()}, tmp_path / "out", mirror=mirror)
    assert unknown["checksum_from"] == "mirror" and unknown["upstream"] is None


@pytest.mark.parametrize("remote", [False, True])
def test_mirror_says_what_its_files_are(server, tmp_path, remote):
    folder = tmp_path / "mirror"
    folder.mkdir()
    text = yaml.safe_dump({"md17": ["Revised labels."], "md17_ethanol": ["A slice."]})
    server["files"] |= {"/m/file.bin": b"x", "/m/MIRROR.yaml": text.encode()}
    (folder / "file.bin").write_bytes(b"x")
    (folder / "MIRROR.yaml").write_text(text)
    mirror = server["url"] + "/m" if remote else str(folder)
    source = {"files": {"a/f": {"urls": [], "mirror": "file.bin"}}}

    def notes(name):
        (record,) = fetch(name, source, tmp_path / name, mirror=mirror, progress=False)
        assert json.loads((tmp_path / name / "a" / "f.source.json").read_text()) == record
        assert record["file"] == "a/f"
        return record.get("notes")

    assert notes("md17_ethanol") == ["A slice.", "Revised labels."]
    assert notes("md17_uracil") == ["Revised labels."] and notes("qm9") is None


@pytest.mark.parametrize("text", ["- a list\n", "qm9: a sentence\n", "qm9: [\n"])
def test_mirror_with_unreadable_notes(tmp_path, text):
    (tmp_path / "MIRROR.yaml").write_text(text)
    with pytest.raises(SchNetError, match=r"MIRROR\.yaml"):
        fetch("qm9", {"files": {}}, tmp_path / "out", mirror=str(tmp_path))


def test_mirror_that_is_no_folder(tmp_path):
    with pytest.raises(SchNetError, match="is not a folder"):
        fetch_file("f", {"urls": [], "mirror": "x"}, tmp_path, mirror=str(tmp_path / "absent"))


# ---- Materials Project, live ---------------------------------------------------------------------
KEY = "abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture
def materials_api(monkeypatch, tmp_path):
    """A server on loopback that answers the official client like the Materials Project."""
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as Pymatgen

    state = {"requests": [], "limited": 2, "broken_batch": None}
    ids = [f"mp-{k}" for k in range(1, 8)]
    structures = {
        m: Pymatgen(
            Lattice.cubic(3.0 + 0.1 * k), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ).as_dict()
        for k, m in enumerate(ids)
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self, code, value):
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            from urllib.parse import parse_qs, urlparse

            url = urlparse(self.path)
            query = {k: v[-1] for k, v in parse_qs(url.query).items()}
            state["requests"].append((url.path, query))
            if url.path.endswith("heartbeat"):
                return self.reply(
                    200,
                    {
                        "status": "OK",
                        "db_version": "2026.10.1",
                        "version": "0.87.0",
                        "access_controlled_batch_ids": [],
                    },
                )
            if self.headers.get("x-api-key") != KEY:
                return self.reply(403, {"detail": "Invalid API key"})
            if state["limited"]:
                state["limited"] -= 1
                return self.reply(429, {"detail": "rate limit"})
            wanted = query.get("material_ids", "").split(",") if query.get("material_ids") else ids
            if (
                state["broken_batch"]
                and state["broken_batch"] in wanted
                and "structure" in query.get("_fields", "")
            ):
                return self.reply(500, {"detail": "database is down"})
            skip, limit = int(query.get("_skip", 0)), int(query.get("_limit", 100))
            if "_page" in query:
                limit = int(query.get("_per_page", 100))
                skip = (int(query["_page"]) - 1) * limit
            fields = query.get("_fields", "material_id").split(",")
            full = [
                {"material_id": m, "structure": structures[m], "formation_energy_per_atom": -0.5}
                for m in wanted
            ]
            rows = [{k: d[k] for k in fields if k in d} for d in full]
            self.reply(200, {"data": rows[skip : skip + limit], "meta": {"total_doc": len(rows)}})

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state["endpoint"] = f"http://127.0.0.1:{httpd.server_port}/"
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(materials_project, "BATCH", 3)
    yield state
    httpd.shutdown()


def test_live_query_through_the_official_client(materials_api, tmp_path):
    materials_api["broken_batch"] = "mp-7"
    with pytest.raises(SchNetError, match="run again to continue"):
        materials_project.fetch_live(
            tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
        )
    assert not (tmp_path / "raw" / materials_project.LIVE).exists()
    materials_api["broken_batch"] = None
    seen = len(materials_api["requests"])
    (record,) = materials_project.fetch_live(
        tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
    )
    path = tmp_path / "raw" / materials_project.LIVE
    again = [q for p, q in materials_api["requests"][seen:] if "structure" in q.get("_fields", "")]
    assert all(
        "mp-7" in q["material_ids"] for q in again
    )  # finished batches are not asked for again
    assert record["database_version"] == "2026.10.1" and record["query"]["num_elements"] == [1, 8]
    assert record["file"] == path.name and record["bytes"] == path.stat().st_size
    assert record["sha256"] == file_digest(path) and record["checksum_from"] == FIRST_FETCH
    assert [record] == materials_project.fetch_live(tmp_path / "raw", progress=False)  # kept
    assert KEY not in "".join(p.read_text() for p in (tmp_path / "raw").rglob("*.json*"))
    about = {"sources": [record]}
    materials_project.convert(tmp_path / "raw", tmp_path / "mp.h5", name="mp", about=about)
    assert len(Store(tmp_path / "mp.h5")) == 7
    with open(path, "a", encoding="utf-8") as f:
        f.write("{}\n")
    with pytest.raises(DataError, match="delete it"):
        materials_project.fetch_live(tmp_path / "raw", progress=False)


def test_live_file_of_an_older_fetch_gets_a_whole_record(materials_api, tmp_path):
    path = tmp_path / materials_project.LIVE
    path.write_text("{}\n")
    write_json(tmp_path / f"{path.name}.source.json", {"database_version": "2026.1", "url": "x"})
    (record,) = materials_project.fetch_live(tmp_path, progress=False)
    assert record["database_version"] == "2026.1" and record["sha256"] == file_digest(path)
    assert materials_api["requests"] == []


def test_key_missing_malformed_or_refused(materials_api, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(SchNetError, match="MP_API_KEY is not set"):
        materials_project.fetch_live(tmp_path / "raw")
    monkeypatch.setenv("MP_API_KEY", "short")
    with pytest.raises(SchNetError, match="has 5 characters") as error:
        materials_project.fetch_live(tmp_path / "raw")
    wrong = "z" * 32
    monkeypatch.setenv("MP_API_KEY", wrong)
    materials_api["limited"] = 0
    with pytest.raises(SchNetError, match="key was refused") as error:
        materials_project.fetch_live(
            tmp_path / "raw", endpoint=materials_api["endpoint"], progress=False
        )
    assert wrong not in str(error.value)
    assert not (tmp_path / "raw" / materials_project.LIVE).exists()
