"""What is said and drawn of converted data sets."""

import html
import json
import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data import chemical_symbols
from ase.io import read
from conftest import write_molecules

from schnet import viewer
from schnet.data import describe, drawing
from schnet.data.export import export
from schnet.data.raw_files import MADE_HERE
from schnet.data.store import Store, Structure, write_store
from schnet.errors import ConfigError, DataError
from schnet.figures import style
from schnet.units import factor


@pytest.fixture
def axes():
    figure, table = style.grid(1, 1, (2.4, 2.0))
    return figure, table[0, 0]


def test_structures_are_exported_with_their_labels(tmp_path):
    store = write_molecules(tmp_path / "t.h5", 8)
    for which, numbers in {"3": [3], ":": range(8), "2:7:2": [2, 4, 6], "6:": [6, 7]}.items():
        export(store.path, which, tmp_path / "out.extxyz")
        images = read(tmp_path / "out.extxyz", ":")
        assert len(images) == len(numbers)
        for number, atoms in zip(numbers, images, strict=True):
            structure = store.structure(number)
            energy = structure.properties["energy"] * factor(store.properties["energy"].unit, "eV")
            assert atoms.get_potential_energy() == pytest.approx(energy)
            assert np.allclose(atoms.positions, structure.positions, atol=1e-7)


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("8", DataError, "no structure 8; it has 8"),
        ("-1", DataError, "no structure -1"),
        ("9:", DataError, "no structure in 9:"),
        ("", ConfigError, "neither"),
        ("1,2", ConfigError, "a range like 0:100"),
        ("1:2:3:4", ConfigError, "neither"),
    ],
)
def test_structures_that_are_not_there(tmp_path, which, error, message):
    store = write_molecules(tmp_path / "t.h5", 8)
    with pytest.raises(error, match=message):
        export(store.path, which, tmp_path / "out.extxyz")
    assert not (tmp_path / "out.extxyz").exists()


def test_a_distribution_is_that_of_all_pieces(monkeypatch):
    monkeypatch.setattr(describe, "CHUNK", 7)
    monkeypatch.setattr(describe, "SAMPLE", 40)
    values = np.random.default_rng(0).normal([0, 5, 9], 0.1, (100, 3))
    for component in (None, 0, 1, 2):
        wanted = values if component is None else values[:, component]
        found = describe.distribution(values, component)
        assert (found.minimum, found.maximum) == (wanted.min(), wanted.max())
        assert found.mean == pytest.approx(wanted.mean())
        assert found.deviation == pytest.approx(wanted.std())
        assert found.sample.tolist() == wanted[::3].ravel().tolist()  # at most 40 of 100


def test_ticks_of_a_narrow_histogram_far_from_zero_do_not_overlap(axes):
    figure, ax = axes
    energies = -97208.31 + np.random.default_rng(0).normal(0, 1e-3, 500)
    one = describe.distribution(energies)
    edges, counts = describe.draw_distribution(ax, {"energy": one}, "energy", "kcal/mol")
    assert counts.sum() == 500 and edges[0] == energies.min() and edges[-1] == energies.max()
    assert ax.get_xlabel() == "energy − mean / kcal/mol" and ax.get_ylabel()
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
    assert len(boxes) > 2
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def ethanol():
    atoms = molecule("CH3CH2OH")
    forces = np.random.default_rng(0).normal(0, 60, (len(atoms), 3))
    return Structure("a", atoms.numbers, atoms.positions, {"forces": forces})


def crystal():
    atoms = bulk("Al", cubic=True)
    return Structure("b", atoms.numbers, atoms.positions, {}, atoms.cell.array)


@pytest.mark.parametrize("structure", [ethanol(), crystal()], ids=["ethanol", "crystal"])
def test_a_drawn_structure_is_cut_nowhere_and_fills_the_picture(axes, structure):
    _, ax = axes
    drawing.draw_structure(ax, structure)
    ends = [line.get_xydata() for line in ax.lines]
    circles = [(np.array(patch.center), patch.radius) for patch in ax.patches]
    assert len(circles) == len(structure.atomic_numbers)
    ends += [np.stack([centre - radius, centre + radius]) for centre, radius in circles]
    arrows = ax.collections
    assert len(arrows) == ("forces" in structure.properties)
    for arrow in arrows:
        tips = arrow.get_offsets() + np.stack([arrow.U, arrow.V], 1)
        assert np.linalg.norm(tips - arrow.get_offsets(), axis=1).max() <= drawing.LONGEST_ARROW
        ends.append(tips)
    points = np.concatenate(ends)
    for k, (low, high) in enumerate((ax.get_xlim(), ax.get_ylim())):
        assert low < points[:, k].min() < low + 0.5 and high - 0.5 < points[:, k].max() < high
    cell_edges = [line for line in ax.lines if line.get_color() == describe.BLUE]
    assert len(cell_edges) == (0 if structure.cell is None else 12)


def test_data_made_here_are_not_called_by_the_name_of_upstream(tmp_path, capsys):
    store = write_molecules(tmp_path / "a.h5", 4, name="QM9")
    assert describe.full_title(store) == "QM9"
    made = {"file": "x", "url": f"{MADE_HERE}: EMT (ase)", "checksum_from": MADE_HERE}
    structures = (store.structure(k) for k in range(4))
    out = tmp_path / "b.h5"
    write_store(out, structures, store.properties, name="mp", title="Materials", sources=[made])
    describe.describe(out, tmp_path / "b.png")
    assert capsys.readouterr().out.startswith("EMT (ase), in place of Materials: 4 structures")
    assert describe.full_title(Store(out)) == "EMT (ase), in place of Materials"


def test_a_page_of_structures_that_turn(tmp_path):
    """What the page draws has the distances of the structure; nothing comes from elsewhere."""
    write_molecules(tmp_path / "toy.h5", count=3)
    drawing.show(tmp_path / "toy.h5", 1, tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text()
    assert not re.search(r"(src|href)=|https?://", page)
    (content,) = re.findall(r"data-structure='([^']*)'", page)
    drawn = json.loads(html.unescape(content))
    structure = Store(tmp_path / "toy.h5").structure(1)
    assert drawn["symbols"] == [chemical_symbols[z] for z in structure.atomic_numbers]
    shown, true = np.array(drawn["atoms"]), structure.positions
    for a, b in combinations(range(len(true)), 2):
        distance = np.linalg.norm(true[a] - true[b])
        assert np.linalg.norm(shown[a] - shown[b]) == pytest.approx(distance, abs=0.01)
    lengths = np.linalg.norm(drawn["arrows"], axis=1)
    forces = np.linalg.norm(structure.properties["forces"], axis=1)
    assert lengths / lengths.max() == pytest.approx(forces / forces.max(), abs=0.01)
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    salt = Structure("salt", crystal.numbers, crystal.positions, {}, cell=np.array(crystal.cell))
    page = viewer.structures_page("<Salt>", {"NaCl <b>": salt})
    assert "<title>&lt;Salt&gt;" in page and "NaCl &lt;b&gt;" in page
    drawn = json.loads(html.unescape(re.findall(r"data-structure='([^']*)'", page)[0]))
    edges = np.array(drawn["edges"])
    assert np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1) == pytest.approx(
        np.full(12, 5.6), 1e-3
    )
    assert drawn["arrows"] == []
