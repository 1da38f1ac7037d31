"""`schnet compare`: regenerated tables, and two results side by side."""

import csv
import subprocess

import pytest

from schnet.compare import compare, pairs
from schnet.errors import DataError, SchNetError


def write_tables(folder, *cells):
    folder.mkdir()
    lines = [f"x,y{k},{value},{data}" for k, (value, data) in enumerate(cells)]
    text = "\n".join(["row,column,measured,data", *lines, "z,y,,"])
    (folder / "table_1.csv").write_text(text + "\n")
    return folder


def test_compare_with_a_relative_tolerance(tmp_path, capsys):
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (-2.0, "d2"))
    compare(committed, write_tables(tmp_path / "b", (1.04, "d1"), (-2.0, "d2")), 0.05)
    assert capsys.readouterr().out == "2 cells of 1 tables agree within 5 %\n"
    far = write_tables(tmp_path / "c", (1.06, "d1"), (-2.0, "d2"))
    with pytest.raises(SchNetError, match=r"1 problems in 2 cells.*\n.* x, y0: 1\.06, was 1 \(5 %"):
        compare(committed, far, 0.05)
    compare(committed, far, 0.1)
    with pytest.raises(SchNetError, match="y1: missing, was -2"):
        compare(committed, write_tables(tmp_path / "d", (1.0, "d1")), 0.05)
    with pytest.raises(SchNetError, match="nan, was 1"):
        compare(committed, write_tables(tmp_path / "e", ("nan", "d1"), (-2.0, "d2")), 0.05)


def test_compare_allows_a_factor_for_data_made_elsewhere(tmp_path, capsys):
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (2.0, "d2"))
    compare(committed, write_tables(tmp_path / "b", (1.01, "d1"), (9.0, "other")), 0.05, 5)
    out = capsys.readouterr().out
    assert "1 cells of 1 tables agree within 5 %" in out
    assert "1 cells agree within a factor of 5" in out and "another kind of processor" in out
    with pytest.raises(SchNetError, match=r"y1: 11, was 2 \(a factor of 5, from other data"):
        compare(committed, write_tables(tmp_path / "c", (1.0, "d1"), (11.0, "other")), 0.05, 5)
    with pytest.raises(SchNetError, match=r"y1: 0\.3, was 2"):
        compare(committed, write_tables(tmp_path / "d", (1.0, "d1"), (0.3, "other")), 0.05, 5)


def test_compare_names_the_cell_that_is_no_number(tmp_path):
    good = write_tables(tmp_path / "good", (1.0, "d"))
    bad = write_tables(tmp_path / "bad", ("many", "d"))
    with pytest.raises(DataError, match=r"bad/.*csv: x, y0: measured: 'many' is not a number"):
        compare(good, bad)


def test_compare_leaves_out_what_is_derived(tmp_path):
    """A logarithm has no sign that a factor could be asked of; its ingredients are compared."""
    committed = write_tables(tmp_path / "a", (1.0, "d1"), (0.01, "d1"))
    other = write_tables(tmp_path / "b", (1.0, "d1"), (-0.02, "d1"))
    with pytest.raises(SchNetError, match="y1"):
        compare(committed, other)
    for folder in (committed, other):
        file = folder / "table_1.csv"
        first, *lines = file.read_text().splitlines()
        lines = [f"{line},{'log_mae' if 'y1' in line else ''}" for line in lines]
        file.write_text("\n".join([f"{first},derived", *lines]) + "\n")
    compare(committed, other)


def test_compare_wants_something_to_compare(tmp_path):
    empty = write_tables(tmp_path / "a")
    with pytest.raises(SchNetError, match="nothing is compared"):
        compare(empty, write_tables(tmp_path / "b", (1.0, "d1")))
    with pytest.raises(SchNetError, match="no table to compare with"):
        compare(tmp_path / "absent", empty)


def write_cells(results, *lines):
    (results / "tables").mkdir(parents=True)
    head = "row,column,unit,measured,printed,data"
    (results / "tables" / "table_1.csv").write_text("\n".join([head, *lines]) + "\n")
    return results


def test_compare_side_by_side_across_scales(tmp_path):
    one = write_cells(tmp_path / "small", "U0,mae,eV,0.5,0.014,d1", "mu,mae,Debye,2,0.033,d1")
    lines = ("U0,mae,meV,250,14,d2", "mu,mae,Debye,6,0.033,d1", "G,mae,eV,1,,d1")
    other = write_cells(tmp_path / "demo", *lines)
    done = subprocess.run(
        ["schnet", "compare", one, other, "-o", tmp_path / "both"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "2 cells measured in both, 1 in one alone" in done.stdout
    assert "0.5 to 3, median 1.75" in done.stdout
    with open(tmp_path / "both.csv", newline="", encoding="utf-8") as f:
        records = {record["row"]: record for record in csv.DictReader(f)}
    u0, dipole = records["U0"], records["mu"]
    assert (u0["unit"], u0["first"], u0["second"], u0["ratio"]) == ("eV", "0.5", "0.25", "0.5")
    assert (u0["printed"], u0["same_data"], dipole["same_data"]) == ("0.014", "no", "yes")
    assert (records["G"]["first"], records["G"]["ratio"]) == ("", "")
    assert "| mu | mae | Debye | 2 | 6 | 3 | 0.033 | yes |" in (tmp_path / "both.md").read_text()
    assert (tmp_path / "both.png").stat().st_size > 10_000


def test_compare_side_by_side_wants_common_cells_of_one_quantity(tmp_path):
    one = write_cells(tmp_path / "a", "U0,mae,eV,0.5,,d")
    with pytest.raises(SchNetError, match="no cell is measured in both"):
        pairs(one, write_cells(tmp_path / "b", "G,mae,eV,0.5,,d"))
    with pytest.raises(SchNetError, match=r"table_1.csv: U0, mae: cannot convert Debye"):
        pairs(one, write_cells(tmp_path / "c", "U0,mae,Debye,0.5,,d"))
