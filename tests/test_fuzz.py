"""Damaged and absurd input, seeded: one sentence or success, never a traceback, hang or unpickling.

Every case is drawn from its own seed, which a failure names; `-k "qm9 and 17"` repeats one.
"""

import copy
import gzip
import importlib
import io
import json
import os
import pickle
import random
import signal
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from conftest import random_model, write_molecules

from schnet.cli import main
from schnet.data.materials_project import FROZEN
from schnet.data.splits import make_split, save_split
from schnet.methods import fit
from schnet.models import save_model
from schnet.run import make_spec

PATIENCE = 60  # seconds; what takes longer hangs


class Hangs(BaseException):
    """Not an Exception: nothing that a reader expects."""


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture(autouse=True)
def patience():
    def give_up(*_):
        raise Hangs(f"nothing after {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def command(capsys, *arguments):
    """`schnet …` in this process: it succeeds, or says one sentence."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = main([str(a) for a in arguments])
    lines = capsys.readouterr().err.splitlines()
    if status:
        assert status == 2 and lines[-1].startswith("schnet: error: "), lines
        assert not [line for line in lines[:-1] if "error" in line], lines
        assert len(lines[-1]) > len("schnet: error: 'x'"), lines
    return status


# ---- mutations -----------------------------------------------------------------------------------
def damaged(content, rng):
    """Bytes with something flipped, cut off, cut out, repeated, overwritten or put in between."""
    content = bytearray(content)
    kind = rng.choice(["flip", "flip", "cut", "remove", "repeat", "zero", "insert", "all"])
    at = rng.randrange(len(content) + 1)
    to = min(len(content), at + rng.choice([1, 2, 10, 100, 1000]))
    if kind == "flip":
        for _ in range(rng.choice([1, 3, 30])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "remove":
        del content[at:to]
    elif kind == "repeat":
        content[at:at] = content[at:to] * rng.choice([1, 5])
    elif kind == "zero":
        content[at:to] = bytes(to - at)
    elif kind == "insert":
        content[at:at] = rng.randbytes(rng.choice([1, 8, 200]))
    else:
        content = bytearray(rng.randbytes(rng.choice([0, 1, 300])))
    return bytes(content)


WORDS = [
    "nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "1e-320",
    "",
    "x",
    "99999999999999999999",
    "0x10",
    "#",
    "é",
]


def misprinted(text, rng):
    """Text with a word exchanged, lines lost, doubled or in another order, or damaged bytes."""
    kind = rng.choice(["word", "word", "word", "line", "bytes"])
    if kind == "bytes":
        return damaged(text.encode(), rng).decode("utf-8", "replace")
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    if kind == "line":
        other = rng.randrange(len(lines))
        change = rng.choice(["lose", "double", "swap"])
        if change == "lose":
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        else:
            lines[at], lines[other] = lines[other], lines[at]
        return "\n".join(lines)
    words = lines[at].split(" ")
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    lines[at] = " ".join(words)
    return "\n".join(lines)


VALUES = [
    None, True, False, -1, 0, 1, 0.5, 1e-300, 1e300, float("nan"), float("inf"), 2**64, "", "x",
    "nan", "../..", "é\n", [], [1], ["x"], {}, {"a": 1}, {1: 2},
]  # fmt: skip


def absurd(value, rng, values=VALUES):
    """A nested value with one entry lost, added or exchanged."""
    value = copy.deepcopy(value)
    here = value
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return rng.choice(values)
        key = rng.choice(keys)
        if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.8:
            here = here[key]
            continue
        change = rng.choice(["lose", "exchange", "exchange", "exchange", "add"])
        if change == "lose":
            del here[key]
        elif change == "exchange" or not isinstance(here, dict):
            here[key] = rng.choice(values)
        else:
            here[rng.choice(["x", "", 1, None])] = rng.choice(values)
        return value


# ---- converters ----------------------------------------------------------------------------------
METHANE = """5
gdb 1 157.7 157.7 157.7 0. 13.2 -0.38 0.11 0.50 35.3 0.04 -40.4 -40.4 -40.4 -40.4 6.4
C -0.0126981359 1.0858041578 0.0080009958 -0.535689
H 0.002150416 -0.0060313176 1.9761204*^-6 0.133921
H 1.0117308433 1.4637511618 0.0002765748 0.133922
H -0.540815069 1.4475266138 -0.8766437152 0.133923
H -0.5238136345 1.4379326443 0.9063972942 0.133923
1341.307 1341.3284 1341.365 1562.6731 1562.7453 3038.3205 3151.6034 3151.6788
C C
InChI=1S/CH4/h1H4 InChI=1S/CH4/h1H4
"""


def archive(members, mode):
    """A tar archive of texts by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def raw_qm9(rng):
    """Molecule files, the lists beside them, or the archive."""
    molecules = {f"dsgdb9nsd_{k:06d}.xyz": METHANE.replace("gdb 1", f"gdb {k}") for k in (1, 2, 3)}
    files = {
        "uncharacterized.txt": "header\n   3  CC  C\n",
        "atomref.txt": "H 0.0 -0.50 -0.49 -0.49 -0.51 2.98\nC 0.0 -37.8 -37.8 -37.8 -37.8 2.98\n",
    }
    where = rng.choice([molecules, molecules, files, {}])
    if where:
        name = rng.choice(sorted(where))
        where[name] = misprinted(where[name], rng)
    packed = archive({name: text.encode() for name, text in molecules.items()}, "w:bz2")
    content = {name: text.encode() for name, text in files.items()}
    return content | {"dsgdb9nsd.xyz.tar.bz2": packed if where else damaged(packed, rng)}


def strange_array(array, rng):
    """Another type, another shape or absurd values."""
    kind = rng.choice(["type", "shape", "value", "value", "object"])
    if kind == "type":
        types = ["U5", "S5", "complex128", "float16", "bool", "int8", "M8[s]", "i4,f8"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.zeros(array.shape, rng.choice(types))
    if kind == "shape":
        shapes = [(0,), (), (1,), array.shape[1:], (*array.shape, 1), (0, *array.shape[1:])]
        return np.resize(array, rng.choice(shapes))
    if kind == "object":
        return np.array([Bomb("unpickled")], object)
    array = array.astype(rng.choice([float, array.dtype]))
    value = rng.choice([-1, 0, 101, *([6.7, 1e30, np.nan, np.inf] if array.dtype == float else [])])
    array[tuple(rng.randrange(n) for n in array.shape)] = value
    return array


def raw_md17(rng):
    """Arrays, or the archive."""
    atoms = molecule("CH3CH2OH")
    noise = np.random.default_rng(rng.randrange(2**32))
    positions = atoms.positions + noise.normal(0, 0.05, (4, len(atoms), 3))
    arrays = {
        "z": atoms.numbers,
        "R": positions,
        "E": noise.normal(size=(4, 1)),
        "F": noise.normal(size=positions.shape),
    }
    whole = rng.random() < 0.2
    if not whole:
        name = rng.choice(sorted(arrays))
        arrays[name] = strange_array(arrays[name], rng)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = stream.getvalue()
    return {"md17_ethanol.npz": damaged(content, rng) if whole else content}


def raw_iso17(rng, folder):
    """Databases, the list of rows, or the archive."""
    from ase.db import connect

    members = {}
    for part in ("reference", "test_within", "test_other"):
        file = folder / f"{part}.db"
        with connect(file) as database:
            for k in range(2):
                atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.01 * k]])
                forces = {"atomic_forces": np.ones((2, 3)) * k}
                database.write(atoms, total_energy=-3.0 - k, data=forces)
        members[f"iso17/{part}.db"] = file.read_bytes()
        file.unlink()
    members["iso17/validation_ids.txt"] = b"1\n"
    kind = rng.choice(["member", "member", "lost", "stream", "archive"])
    name = rng.choice(sorted(members))
    if kind == "member":
        members[name] = damaged(members[name], rng)
    elif kind == "lost":
        del members[name]
    plain = archive(members, "w")
    content = gzip.compress(damaged(plain, rng) if kind == "stream" else plain, 1)
    return {"iso17.tar.gz": damaged(content, rng) if kind == "archive" else content}


def raw_c20(rng):
    """A trajectory."""
    stream = io.StringIO()
    frames = []
    for k in range(2):
        atoms = Atoms("C3", [[0, 0, 0], [1.4, 0, 0], [0, 1.4, 0.1 * k]])
        atoms.info["energy_kcal"] = -1.0 * k
        atoms.arrays["forces_kcal"] = np.ones((3, 3))
        frames.append(atoms)
    write(stream, frames, format="extxyz")
    return {"c20_trajectory_0.extxyz": misprinted(stream.getvalue(), rng).encode("utf-8")}


def raw_materials_project(rng):
    """CIF, values of JSON, JSON, or the archive."""
    from pymatgen.io.ase import AseAtomsAdaptor

    items = [
        {
            "material_id": f"mp-{k}",
            "structure": str(AseAtomsAdaptor.get_structure(atoms).to(fmt="cif")),
            "formation_energy_per_atom": -0.1,
        }
        for k, atoms in enumerate((bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)))
    ]
    kind = rng.choice(["cif", "cif", "value", "json", "archive"])
    if kind == "cif":
        item = rng.choice(items)
        item["structure"] = misprinted(item["structure"], rng)
    if kind == "value":
        items = absurd(items, rng)
    text = json.dumps(items).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("mp.2018.6.1.json", damaged(text, rng) if kind == "json" else text)
    content = stream.getvalue()
    return {FROZEN: damaged(content, rng) if kind == "archive" else content}


CONVERTERS = {
    "qm9": (raw_qm9, 40),
    "md17_ethanol": (raw_md17, 60),
    "iso17": (raw_iso17, 30),
    "c20": (raw_c20, 60),
    "materials_project": (raw_materials_project, 60),
}
CASES = [(name, k) for name, (_, count) in CONVERTERS.items() for k in range(count)]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_converters(name, seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(f"{name} {seed}")
    make = CONVERTERS[name][0]
    files = make(rng, tmp_path) if make is raw_iso17 else make(rng)
    (tmp_path / "raw").mkdir()
    for file, content in files.items():
        (tmp_path / "raw" / file).write_bytes(content)
    root = importlib.resources.files("schnet") / ".."
    status = command(capsys, "--workflow", root, "data", "convert", name, "raw", "out.h5")
    assert (tmp_path / "out.h5").exists() == (status == 0)
    assert not (tmp_path / "unpickled").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


# ---- run files -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with data, split, a run file and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    store = write_molecules(folder / "d.h5", 24)
    save_split(folder / "s.npz", store, make_split(store, n_train=12, n_validation=6, seed=0))
    run = {
        "dataset": "toy",
        "data": str(folder / "d.h5"),
        "split": str(folder / "s.npz"),
        "target": "energy",
        "forces": "forces",
        "model": {"n_interactions": 1, "n_features": 8},
        "batch_size": 4,
        "steps": 2,
        "validation_interval": 1,
        "n_train": 12,
        "n_validation": 6,
        "engine": "table",
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(run))
    fit(make_spec(run), folder / "run")
    return folder


@pytest.mark.parametrize("seed", range(80))
def test_run_files(finished, seed, tmp_path, capsys):
    rng = random.Random(f"run {seed}")
    text = (finished / "settings.yaml").read_text()
    values = yaml.safe_load(text)
    form = rng.choice(["values", "values", "values", "text", "inline"])
    argument = tmp_path / "settings.yaml"
    if form == "text":
        argument.write_text(misprinted(text, rng))
    elif form == "values":
        argument.write_text(yaml.safe_dump(absurd(values, rng)))
    else:
        argument = "{" + misprinted(json.dumps(values), rng)[1:]
    command(capsys, "train", argument, "--output", tmp_path / "run", "--device", "cpu")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("name", ["run.yaml", "checkpoint.pt"])
def test_files_of_a_run(finished, name, seed, tmp_path, capsys):
    """Evaluated and trained again."""
    rng = random.Random(f"{name} {seed}")
    run = tmp_path / "run"
    run.mkdir()
    kept = {"run.yaml": ["model.pt", "history.csv"], "checkpoint.pt": []}[name]
    for file in kept:
        (run / file).write_bytes((finished / "run" / file).read_bytes())
    content = (finished / "run" / name).read_bytes()
    if name == "checkpoint.pt":
        content = torch_file(torch.load(io.BytesIO(content), weights_only=True), rng, tmp_path)
    elif rng.random() < 0.7:
        content = yaml.safe_dump(absurd(yaml.safe_load(content), rng)).encode()
    else:
        content = misprinted(content.decode(), rng).encode()
    (run / name).write_bytes(content)
    if name == "run.yaml":
        command(capsys, "evaluate", run, "--device", "cpu")
    settings = finished / "settings.yaml"
    command(capsys, "train", settings, "--output", run, "--device", "cpu")
    assert not (tmp_path / "unpickled").exists()


# ---- model files ---------------------------------------------------------------------------------
def torch_file(content, rng, folder):
    """The bytes of a file of PyTorch with absurd content, a pickle that acts, or damage."""
    kind = rng.choice(["values", "values", "bytes", "bomb", "pickle"])
    if kind == "values":
        odd = [*VALUES, torch.zeros(3), torch.zeros(0), torch.full((2, 2), torch.nan)]
        content = absurd(content, rng, odd)
    if kind == "bomb":
        content = dict(content) | {rng.choice(sorted(content)): Bomb(folder / "unpickled")}
    if kind == "pickle":
        return pickle.dumps(Bomb(folder / "unpickled"))
    stream = io.BytesIO()
    torch.save(content, stream)
    return damaged(stream.getvalue(), rng) if kind == "bytes" else stream.getvalue()


@pytest.mark.parametrize("seed", range(100))
def test_model_files(seed, tmp_path, capsys):
    rng = random.Random(f"model {seed}")
    file = tmp_path / "model.pt"
    model = random_model(n_features=8, n_interactions=1)
    save_model(file, model, target="energy", unit="eV", force_unit="eV/Å")
    content = torch.load(file, weights_only=True)
    file.write_bytes(torch_file(content, rng, tmp_path))
    write(tmp_path / "water.extxyz", molecule("H2O"))
    out = tmp_path / "out.extxyz"
    command(capsys, "predict", file, tmp_path / "water.extxyz", "-o", out, "--device", "cpu")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("seed", range(40))
def test_structures(seed, tmp_path, capsys):
    rng = random.Random(f"structures {seed}")
    model = random_model(n_features=8, n_interactions=1)
    file = tmp_path / "model.pt"
    save_model(file, model, target="energy", unit="eV", force_unit="eV/Å")
    stream = io.StringIO()
    write(stream, [molecule("H2O"), molecule("CH4")], format="extxyz")
    (tmp_path / "in.extxyz").write_text(misprinted(stream.getvalue(), rng))
    out = tmp_path / "out.extxyz"
    command(capsys, "predict", file, tmp_path / "in.extxyz", "-o", out, "--device", "cpu")
