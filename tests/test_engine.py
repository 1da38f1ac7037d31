"""The engines give what the float64 reference does: energies, forces and parameter gradients."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from conftest import ROOT, random_model, random_molecule

from schnet.data.structures import Batch, Structures, from_atoms
from schnet.engine import FlatParameters, ReferenceEngine, make_engine, native
from schnet.engine.inference import Predictor
from schnet.engine.table import Grid, TableEngine, coefficients, knot_spacing
from schnet.errors import ConfigError, DataError

needs_native = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"native engine: {native.unavailable()}"
)
ENGINES = [pytest.param("native", marks=needs_native), "table"]


def molecules(count=9, seed=0, sizes=(1, 12)):
    rng = np.random.default_rng(seed)
    parts = [random_molecule(rng, int(n)) for n in rng.integers(*sizes, count)]
    return Structures(
        np.concatenate([z for z, _ in parts]),
        np.concatenate([r for _, r in parts]),
        np.cumsum([0] + [len(z) for z, _ in parts]),
    )


def crystals():
    a, b = bulk("Cu", "fcc", a=3.6), bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    c = bulk("CsCl", "cesiumchloride", a=4.1)
    for atoms in (b, c):
        atoms.rattle(0.15, seed=0)
    return from_atoms([a, b, c], cutoff=5.0)


def double_copy(model):
    m = copy.deepcopy(model)
    for p in m.parameters():
        p.grad, p.data = None, p.data.clone()
    return m.double()


def evaluate(engine, flat, batch, g_e, g_f):
    energy, forces = engine(batch, g_f is not None)
    loss = (energy * g_e).sum() + (0 if g_f is None else (forces * g_f).sum())
    flat.tensor.grad.zero_()
    loss.backward()
    return (
        energy.detach().double(),
        None if g_f is None else forces.detach().double(),
        flat.tensor.grad.double().clone(),
    )


def compare(data, engine, forces, tolerance=(2e-6, 6e-5, 6e-5), threads=1, **hyperparameters):
    model = random_model(**hyperparameters)
    exact = double_copy(model)
    batch = data.batch(torch.arange(len(data)))
    torch.manual_seed(1)
    g_e = torch.randn(len(batch))
    g_f = torch.randn(len(batch.positions), 3) if forces else None
    reference = evaluate(
        ReferenceEngine(exact),
        FlatParameters(exact),
        batch.to(dtype=torch.float64),
        g_e.double(),
        g_f.double() if forces else None,
    )
    flat = FlatParameters(model)
    result = evaluate(
        make_engine(model, flat, data.distance_range(), engine=engine, threads=threads),
        flat,
        batch,
        g_e,
        g_f,
    )
    for a, b, t in zip(result, reference, tolerance, strict=True):
        if b is not None:
            assert ((a - b).norm() / b.norm()).item() < t


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("features", [16, 32, 48, 64, 128])
@pytest.mark.parametrize("forces", [False, True])
def test_molecules(engine, features, forces):
    compare(molecules(), engine, forces, n_features=features)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("readout", ["sum", "mean"])
@pytest.mark.parametrize("forces", [False, True])
def test_crystals_with_images_of_themselves(engine, readout, forces):
    compare(crystals(), engine, forces, (2e-6, 2e-4, 2e-4), cutoff=5.0, r_max=5.0, readout=readout)


@pytest.mark.parametrize("engine", ENGINES)
def test_crystals_without_normalisation_by_neighbours(engine):
    settings = dict(cutoff=5.0, r_max=5.0, normalise_neighbours=False)
    compare(crystals(), engine, True, (4e-6, 2e-4, 2e-4), **settings)


@pytest.mark.parametrize("engine", ENGINES)
def test_molecules_with_a_cutoff_that_leaves_atoms_alone(engine):
    rng = np.random.default_rng(0)
    atoms = [Atoms(*random_molecule(rng, n, spacing=2.2)) for n in (1, 3, 8)]
    data = from_atoms(atoms, cutoff=2.6)
    alone = np.setdiff1d(np.arange(12), np.concatenate([data.pair_i, data.pair_j]))
    assert len(alone) and len(data.pair_i)
    compare(data, engine, True, cutoff=2.6, r_max=2.6)


@needs_native
@pytest.mark.parametrize("number", [-1, 0, 100, 10**6])
def test_engine_does_not_read_beyond_its_arrays(number):
    """The numbers of elements are indices into the embedding."""
    data = molecules()
    batch = data.batch(torch.arange(len(data)))
    batch.atomic_numbers[3] = number
    model = random_model()
    engine = make_engine(model, FlatParameters(model), data.distance_range(), engine="native")
    frozen = Predictor(model, engine="native", any_element=True)
    for evaluate in (engine, engine.evaluate, frozen.evaluate):
        with pytest.raises(DataError, match="atomic number is outside 1–99"):
            evaluate(batch, True)


@pytest.mark.parametrize("gamma", [0.5, 10.0, 200.0, 800.0])
@pytest.mark.parametrize("engine", ENGINES)
def test_knots_follow_the_width_of_the_gaussians(engine, gamma):
    """Predictions from frozen tables are nearly as good as those of the float32 network."""
    model = random_model(gamma=gamma, r_max=8.0, spacing=min(0.1, 0.4 / gamma**0.5)).eval()
    data = molecules(6)
    batch = data.batch(torch.arange(len(data)))
    energy, forces = double_copy(model).energy_and_forces(batch.to(dtype=torch.float64))
    e, f = Predictor(model, engine=engine).evaluate(batch, True)
    assert ((e - energy).norm() / energy.norm()).item() < 2e-6
    assert ((f - forces).norm() / forces.norm()).item() < 6e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_single_atoms_without_any_pair(engine):
    data = Structures(np.array([6, 8]), np.zeros((2, 3)), np.array([0, 1, 2]))
    compare(data, engine, False)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_gaussians(engine):
    compare(molecules(), engine, True, gamma=50.0, r_max=8.0, spacing=0.2)


@needs_native
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads):
    compare(molecules(40), "native", True, threads=threads)


@needs_native
def test_same_threads_same_bits():
    data, model = molecules(40), random_model()
    flat = FlatParameters(model)
    batch = data.batch(torch.arange(len(data)))
    g = torch.ones(len(batch)), torch.ones(len(batch.positions), 3)
    engine = make_engine(model, flat, data.distance_range(), engine="native", threads=2)
    first, second = (evaluate(engine, flat, batch, *g) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("build", ["plain", "avx2", "avx512"])
def test_every_build_of_this_machine(build, monkeypatch):
    monkeypatch.setenv("SCHNET_NATIVE", build)
    native.library.cache_clear()
    try:
        if native.unavailable():
            pytest.skip(native.unavailable())
        assert native.library().build == build
        compare(molecules(), "native", True, n_features=48)
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


def test_fallback_when_there_is_no_native_engine(monkeypatch):
    monkeypatch.setenv("SCHNET_NATIVE", "off")
    native.library.cache_clear()
    try:
        data, model = molecules(), random_model()
        assert make_engine(model, FlatParameters(model), data.distance_range()).name == "table"
        with pytest.raises(ConfigError, match="disabled"):
            make_engine(model, FlatParameters(model), data.distance_range(), engine="native")
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("threads", [1, 3])
def test_dipole_moments(engine, threads):
    """Norms of sums of charges times positions: gradients, and inference, against float64."""
    data = molecules(40)
    compare(data, engine, False, readout="dipole", threads=threads)
    model = random_model(readout="dipole").eval()
    batch = data.batch(torch.arange(len(data)))
    exact = double_copy(model)(batch.to(dtype=torch.float64)).detach()
    predictor = Predictor(model, engine=engine, threads=threads)
    moments, forces = predictor.evaluate(batch)
    assert forces is None and engine in predictor.engine.name
    assert ((moments - exact).norm() / exact.norm()).item() < 2e-6
    with pytest.raises(ConfigError, match="forces of a dipole moment"):
        predictor.evaluate(batch, True)


@pytest.mark.parametrize("engine", ENGINES)
def test_distances_outside_the_table_are_refused(engine):
    model = random_model()
    e = make_engine(model, FlatParameters(model), (1.0, 3.0), engine=engine)
    far = Structures(np.array([1, 1]), np.array([[0, 0, 0], [4.0, 0, 0]]), np.array([0, 2])).batch(
        torch.tensor([0])
    )
    with pytest.raises(DataError, match="outside"):
        e(far, True)
    with pytest.raises(DataError, match="outside"):
        e.evaluate(far, False)


def test_frozen_table_is_as_good_as_the_float32_network():
    """Filters by the polynomials of the inference table against the float64 network."""
    model = random_model(n_features=64)
    grid = Grid((0.5, 12.0), knot_spacing(10.0, frozen=True))
    d = torch.linspace(0.5, 12.0, 4001, dtype=torch.float64)
    u = (d - grid.lo) / grid.h
    k = u.floor().long()
    powers = torch.stack([(u - k).float() ** n for n in range(6)], 1)
    table = coefficients(model, grid)
    exact = double_copy(model)
    for block32, block64, rows in zip(model.interactions, exact.interactions, table, strict=True):
        truth = block64.filter_network(exact.radial_basis(d))
        by_table = torch.einsum("pm,pmf->pf", powers, rows[k]).double()
        by_network = block32.filter_network(model.radial_basis(d.float())).double()
        assert (by_table - truth).norm() <= 1.2 * (by_network - truth).norm()


@pytest.mark.parametrize("engine", ENGINES)
def test_predictor_extends_its_table(engine):
    model = random_model()
    model.eval()
    near, far = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]]), Atoms("H2", [[0, 0, 0], [0, 0, 9.0]])
    predictor, reference = (
        Predictor(model, engine=engine),
        Predictor(double_copy(model), engine="reference"),
    )
    for atoms in (near, far, near):
        e, f = predictor(from_atoms([atoms]).batch(torch.tensor([0])), True)
        e2, f2 = reference(from_atoms([atoms], dtype=torch.float64).batch(torch.tensor([0])), True)
        assert e.item() == pytest.approx(e2.item(), rel=1e-6) and f.numpy() == pytest.approx(
            f2.numpy(), abs=1e-5
        )
    with pytest.raises(DataError, match="same place"):
        predictor(from_atoms([Atoms("H2", np.zeros((2, 3)))]).batch(torch.tensor([0])), True)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_predictor_for_several_threads(engine):
    """Batches of other sizes at the same time, and a copy through pickle."""
    model = random_model().eval()
    data = molecules(60)
    batches = [data.batch(part) for part in torch.arange(60).split(7)]
    alone = Predictor(model, engine=engine)
    for b in batches:
        alone(b)  # the table is long enough for all
    expected = [alone(b, True) for b in batches]
    shared = pickle.loads(pickle.dumps(alone))
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda b: shared(b, True), batches * 4))
        for (e, f), (e2, f2) in zip(found, expected * 4, strict=True):
            assert torch.equal(e, e2) and torch.equal(f, f2)


def test_hessian_of_the_table_in_double_precision():
    """Second derivatives by the positions, through all operations on pairs."""
    model = random_model(n_features=16).double()
    data = molecules(1, sizes=(5, 6))
    batch = data.batch(torch.tensor([0])).to(dtype=torch.float64)
    exact = torch.autograd.functional.hessian(
        lambda r: model(Batch(**{**batch.__dict__, "positions": r})).sum(), batch.positions
    )
    engine = TableEngine(model, data.distance_range())
    engine.grid = Grid(data.distance_range(), 0.02)
    engine.refresh()
    table = torch.autograd.functional.hessian(
        lambda r: engine._forward(batch, r, engine.table)[0].sum(), batch.positions
    )
    assert table.numpy() == pytest.approx(exact.numpy(), abs=1e-6 * float(exact.abs().max()))


TRITON = """
import torch
from test_engine import compare, crystals, molecules
from schnet.engine.operations import pairs_class
assert pairs_class(torch.zeros(1)).name == "table (Triton)"
compare(molecules(4, sizes=(1, 6)), "table", True, n_features=24, n_interactions=2)
compare(crystals(), "table", False, n_features=16, n_interactions=2)
"""
TRITON_TILES = """
import torch
from schnet.data.structures import Batch
from schnet.engine.pairs import Pairs
from schnet.engine.table import Grid
from schnet.engine.triton_kernels import PARTS, TILE, TritonPairs
rng = torch.Generator().manual_seed(0)
n, p, f = 20, 3 * PARTS * TILE, 40
i, j = torch.randint(n - 1, (2, p), generator=rng)  # the last atom has no neighbours
grid = Grid((1.0, 2.0), 0.2)
d = 1.0 + torch.rand(p, generator=rng) ** 4  # most of them in one bin
ends = torch.tensor([0, n]), torch.tensor([0, p])
batch = Batch(torch.ones(n), torch.zeros(n, 3), *ends, i.int(), j.int())
a, b = torch.randn(2, n, f, generator=rng)
table, h = torch.randn(3 * grid.n_knots, f, generator=rng), torch.randn(p, generator=rng)
plain, kernels = Pairs(batch, grid, d), TritonPairs(batch, grid, d)
assert plain.bins.offsets.diff().max() > PARTS * TILE
assert plain.receivers.offsets.diff().max() > 2 * TILE
for order in range(3):
    calls = [("contract", table, a, b)]
    for x in (None, h):
        calls += [("convolve", x, table, a), ("tabulate", x, a, b)]
    for name, *arguments in calls:
        mine, theirs = (getattr(pairs, name)(*arguments, order) for pairs in (kernels, plain))
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-2 * 10**order)
"""


@pytest.mark.parametrize("program", [TRITON, TRITON_TILES], ids=["engine", "tiles"])
def test_triton_kernels_in_the_interpreter(program):
    """The GPU kernels, run on the CPU here: energies, forces, gradients, many tiles to a sum."""
    pytest.importorskip("triton", reason="the triton package is not installed")
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("capability", [70, 80, 90])
def test_triton_kernels_compile(capability):
    """Machine code for NVIDIA GPUs, without one."""
    pytest.importorskip("triton", reason="the triton package is not installed")
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from schnet.engine import triton_kernels

    integers = {"entries", "senders", "offsets", "bins", "i", "j", "order"}
    for name in ("_convolve_kernel", "_contract_kernel", "_tabulate_kernel"):
        kernel = getattr(triton_kernels, name)
        constants = {
            "F": 64,
            "BLOCK": 64,
            "TILE": triton_kernels.TILE,
            "PARTS": triton_kernels.PARTS,
        }
        kinds = dict.fromkeys(kernel.arg_names, "*fp32")
        kinds |= {n: "*i64" for n in kinds if n in integers}
        kinds |= {n: "i32" for n in kinds if n in ("K", "P")}
        kinds |= {n: "constexpr" for n in kinds if n in constants}
        values = {(k,): constants[n] for k, n in enumerate(kernel.arg_names) if n in constants}
        made = compile(ASTSource(kernel, kinds, values), target=GPUTarget("cuda", capability, 32))
        assert len(made.asm["cubin"]) > 1000


def test_two_hundred_steps_side_by_side():
    """Adam steps with the fastest engine and the reference stay together."""
    data = molecules(64, sizes=(4, 10))
    target = torch.randn(64, generator=torch.Generator().manual_seed(0))
    results = []
    for engine in ("auto", "reference"):
        model = random_model()
        flat = FlatParameters(model)
        e = make_engine(model, flat, data.distance_range(), engine=engine)
        optimiser = torch.optim.Adam([flat.tensor], lr=1e-4, fused=True)
        for step in range(200):
            index = (torch.arange(16) + 16 * step) % 64
            flat.tensor.grad.zero_()
            energy, forces = e(data.batch(index), True)
            ((energy - target[index]).square().mean() + 0.1 * forces.square().mean()).backward()
            optimiser.step()
        e.refresh()
        results.append(e.evaluate(data.batch(torch.arange(64)), False)[0].double())
    spread = results[1].std()
    assert ((results[0] - results[1]).abs().max() / spread).item() < 5e-3


@needs_native
def test_energy_is_conserved():
    """1,000 NVE steps with the inference engine on a trained-like smooth model."""
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    from schnet.simulation.calculator import SchNetCalculator

    model = random_model(scale=0.2).eval()
    model.unit, model.target = "eV", "energy"
    atoms = molecule("CH3CH2OH")
    atoms.calc = SchNetCalculator(model)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 0.2 * units.fs)
    start = atoms.get_total_energy()
    dynamics.run(1000)
    assert abs(atoms.get_total_energy() - start) < 2e-3


def test_benchmarks_run_without_peers(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--only",
        "one aspirin",
        "--seconds",
        "0.1",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "table (PyTorch)" in done.stdout
        and (tmp_path / "ratios.csv").exists()
        and "one aspirin" in (tmp_path / "table.md").read_text()
    )
