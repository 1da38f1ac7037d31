"""Converted files, neighbour lists and splits."""

import h5py
import numpy as np
import pytest
from ase.build import bulk
from conftest import write_molecules

from schnet.data.neighbours import write_neighbours
from schnet.data.splits import load_split, make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.data.structures import load
from schnet.errors import ConfigError, DataError


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


@pytest.mark.parametrize("key", ["offsets", "i", "shift"])
def test_neighbours_with_a_missing_part(crystals, tmp_path, key):
    write_neighbours(crystals, tmp_path / "n.h5", 4.5)
    with h5py.File(tmp_path / "n.h5", "a") as h5:
        del h5[key]
    with pytest.raises(DataError, match="n.h5: damaged .*schnet data neighbours"):
        load(crystals, [0], [], cutoff=4.5, neighbours=tmp_path / "n.h5")


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


def test_loading_a_few_structures_reads_not_all(tmp_path, monkeypatch):
    store = write_molecules(tmp_path / "t.h5", 400)
    sizes, read = [], h5py.Dataset.__getitem__

    def counted(self, *args):
        content = read(self, *args)
        sizes.append(np.size(content))
        return content

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    indices = np.array([203, 201, 200])
    data = load(store, indices, ["energy", "forces"], cutoff=3.0)
    assert max(sizes) <= 4 * 9 * 3  # atoms of four structures
    monkeypatch.undo()
    for k, index in enumerate(indices):
        assert data.properties["energy"][k] == store.structure(index).properties["energy"]


PARTS = ["offsets", "groups", "ids", "positions", "atomic_numbers", "properties"]


@pytest.mark.parametrize("key", PARTS)
def test_store_with_a_missing_part(tmp_path, key):
    store = write_molecules(tmp_path / "t.h5", 5)
    with h5py.File(store.path, "a") as h5:
        del h5[key]
    with pytest.raises(DataError, match="damaged .*convert again"):
        Store(store.path)


@pytest.mark.parametrize("key", [*PARTS[1:5], "properties/energy", "properties/forces"])
def test_store_with_a_shortened_part(tmp_path, key):
    store = write_molecules(tmp_path / "t.h5", 5)
    with h5py.File(store.path, "a") as h5:
        h5[key].resize(3, axis=0)
    with pytest.raises(DataError, match=f"damaged .*/{key}: not of length .*convert again"):
        Store(store.path)


@pytest.mark.parametrize("name", ["name", "sources", "notes", "group_names", "version"])
def test_store_without_an_attribute(tmp_path, name):
    store = write_molecules(tmp_path / "t.h5", 5)
    with h5py.File(store.path, "a") as h5:
        del h5.attrs[name]
    with pytest.raises(DataError, match="damaged .*convert again"):
        Store(store.path)


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
