"""Steps as one CUDA graph: everything around the recording, without a GPU.

The tests at the end want one.
"""

import logging

import numpy as np
import pytest
import torch
from conftest import random_model
from test_engine import crystals, double_copy, evaluate, molecules
from torch.utils._python_dispatch import TorchDispatchMode

from schnet.data.structures import Room, Structures
from schnet.engine import FlatParameters, ReferenceEngine
from schnet.engine.table import TableEngine
from schnet.run import make_spec
from schnet.training import graph
from schnet.training.graph import MOST_GRAPHS, GraphedGradient
from schnet.training.loop import Trainer, train


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_filling_up_changes_nothing(kind):
    """Energies, forces and gradients of a full batch, against the float64 ones of the plain one."""
    if kind == "molecules":
        data, settings = molecules(), {}
    else:
        data, settings = crystals(), {"cutoff": 5.0, "r_max": 5.0, "readout": "mean"}
    model = random_model(**settings)
    exact = double_copy(model)
    batch = data.batch(torch.arange(len(data)))
    n, b = len(batch.positions), len(batch)
    g_e, g_f = torch.randn(b), torch.randn(n, 3)
    plain = evaluate(
        ReferenceEngine(exact),
        FlatParameters(exact),
        batch.to(dtype=torch.float64),
        g_e.double(),
        g_f.double(),
    )
    room = Room(n + 7, len(batch.i) + 50, (1.5, 8.0))
    filled = data.batch(torch.arange(b), room)
    assert (
        len(filled) == b + 1
        and len(filled.positions) == n + 7
        and len(filled.i) == len(batch.i) + 50
    )
    g_e, g_f = torch.cat([g_e, torch.zeros(1)]), torch.cat([g_f, torch.zeros(7, 3)])
    flat = FlatParameters(model)
    energy, forces, gradient = evaluate(TableEngine(model, (1.0, 9.0)), flat, filled, g_e, g_f)
    assert (forces[n:] == 0).all()
    for mine, theirs in ((energy[:b], plain[0]), (forces[:n], plain[1]), (gradient, plain[2])):
        assert ((mine - theirs).norm() / theirs.norm()).item() < 2e-4


def test_filling_up_where_there_are_no_pairs():
    """Single atoms have no pairs that could be copied."""
    data = Structures(np.array([6, 8]), np.zeros((2, 3)), np.array([0, 1, 2]))
    model = random_model()
    plain = model(data.batch(torch.arange(2)))
    filled = model(data.batch(torch.arange(2), Room(5, 10, (1.0, 2.0))))
    assert torch.allclose(filled[:2], plain) and filled.isfinite().all()


def mixture(kind, count=1000):
    """Structures with sizes like those of QM9 or the Materials Project; nothing else matters."""
    rng = np.random.default_rng(0)
    if kind == "molecules":
        counts, pairs = np.clip(rng.normal(18, 3, count).astype(int), 3, 29), None
    else:
        counts = np.clip(rng.lognormal(3.0, 0.8, count).astype(int), 1, 200)
        each = np.ceil(counts * rng.lognormal(3.0, 0.4, count)).astype(int)
        zeros = np.zeros(each.sum(), int)
        pairs = np.concatenate([[0], np.cumsum(each)]), zeros, zeros, None
    n = counts.sum()
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Structures(np.ones(n, int), np.zeros((n, 3)), offsets, pairs=pairs)


@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_batches_of_a_mixture_are_filled_up_by_little(kind):
    """By less than 15 % of the atoms and of the pairs, and few graphs serve all batches."""
    data = mixture(kind)
    gradient = GraphedGradient(None, None, data, 32, (1.0, 2.0))
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randperm(len(data), generator=rng)[:32] for _ in range(2000)]
    rooms = [gradient.room(indices) for indices in batches]
    sizes = np.array([data.size(indices) for indices in batches])
    filled = np.array([(room.n_atoms, room.n_pairs) for room in rooms])
    assert (filled[:, 0] > sizes[:, 0]).all() and (filled[:, 1] >= sizes[:, 1]).all()
    assert (filled.sum(0) < 1.15 * sizes.sum(0)).all()
    assert len(set(rooms)) <= MOST_GRAPHS


class Recorder(TorchDispatchMode):
    """The operations and shapes of a computation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.seen.append(
            (
                str(function),
                [
                    tuple(t.shape)
                    for t in torch.utils._pytree.tree_leaves((args, kwargs, out))
                    if torch.is_tensor(t)
                ],
            )
        )
        return out


def on_cpu(gradient):
    """A GraphedGradient whose replay computes again what it recorded, of the indices it keeps."""

    def record(room):
        loss = gradient.gradient(gradient.indices, room)

        def replay():
            with torch.enable_grad():
                loss.copy_(gradient.gradient(gradient.indices, room))

        return replay, loss

    gradient._record = record
    return gradient


@pytest.fixture
def trainer(toy_run, tmp_path):
    trainer = Trainer(make_spec(toy_run | {"engine": "table"}), tmp_path / "run", device="cpu")
    trainer.engine.checked = False
    return trainer


def graphed(trainer):
    return GraphedGradient(
        trainer.gradient,
        trainer.flat,
        trainer.training.structures,
        trainer.spec.batch_size,
        (1.0, 2.0),
    )


def test_a_step_is_the_same_for_every_batch_and_asks_the_gpu_nothing(trainer, monkeypatch):
    """What a CUDA graph demands of a step.

    The same operations and shapes, no result that the host needs, no copies from the host.
    """
    steps = []
    parts = torch.arange(16).split(8)
    rooms = [graphed(trainer).room(part) for part in parts]
    room = Room(*(max(getattr(r, n) for r in rooms) for n in ("n_atoms", "n_pairs")), (1.0, 2.0))
    for indices in parts:
        trainer.gradient(indices, room)  # fills caches
        with Recorder() as recorder:
            trainer.gradient(indices, room)
        steps.append(recorder.seen)
    assert steps[0] == steps[1] and len(steps[0]) > 100
    host = (
        "_local_scalar_dense",
        "lift_fresh",
        "bincount",
        "nonzero",
        "unique",
        "masked_select",
        "equal",
    )
    assert not [name for name, _ in steps[0] if any(h in name for h in host)]

    def asked(*_):
        raise AssertionError("a value from the GPU is asked for")

    for name in ("tolist", "item", "numpy", "cpu", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    trainer.gradient(indices, room)
    trainer.engine.checked = True  # this does ask
    with pytest.raises(AssertionError, match="from the GPU"):
        trainer.gradient(indices, room)


def test_replayed_steps_are_the_steps(toy_run, tmp_path, trainer, caplog):
    """The indices of a batch are copied into the recorded ones.

    Weights that change in between count.
    """
    caplog.set_level(logging.INFO)
    gradient = on_cpu(graphed(trainer))
    rng = torch.Generator().manual_seed(0)
    for _ in range(12):
        indices = torch.randperm(len(trainer.training), generator=rng)[:8]
        loss, mine = gradient(indices), trainer.flat.tensor.grad.clone()
        plain = trainer.gradient(indices)
        assert float(loss) == pytest.approx(float(plain), rel=1e-5)
        assert (mine - trainer.flat.tensor.grad).norm() < 1e-4 * mine.norm()
        with torch.no_grad():
            trainer.flat.tensor += 0.1 * torch.randn(trainer.flat.tensor.shape, generator=rng)
    assert caplog.text.count("every step is one CUDA graph") == 1 and not gradient.broken
    assert 1 < len(gradient.graphs) < 12


@pytest.mark.parametrize("accident", ["cannot be recorded", "records something else"])
def test_no_graph_then_plain_steps(trainer, caplog, accident):
    gradient = on_cpu(graphed(trainer))
    if accident == "cannot be recorded":

        def record(room):
            raise RuntimeError("operation not permitted when stream is capturing")
    else:
        right = gradient._record

        def record(room):
            replay, loss = right(room)

            def wrong():
                replay()
                trainer.flat.tensor.grad.mul_(1.01)

            return wrong, loss

    gradient._record = record
    weights = trainer.flat.tensor.detach().clone()
    indices = torch.arange(8)
    for _ in range(2):
        loss, mine = gradient(indices), trainer.flat.tensor.grad.clone()
        assert float(loss) == float(trainer.gradient(indices)) and torch.equal(
            mine, trainer.flat.tensor.grad
        )
    assert caplog.text.count("no CUDA graph") == 1 and torch.equal(weights, trainer.flat.tensor)


def test_molecules_of_one_kind_fit_exactly():
    data = Structures(
        np.tile([8, 1, 1], 40), np.random.default_rng(0).normal(size=(120, 3)), np.arange(0, 123, 3)
    )
    gradient = GraphedGradient(None, None, data, 32, (1.0, 2.0))
    room = gradient.room(torch.arange(32))
    assert room.n_pairs == 96 and room.n_atoms == 96 + 16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_training_on_a_gpu(toy_run, tmp_path, caplog):
    """With the graph, and close to the same training on the CPU."""
    caplog.set_level(logging.INFO)
    results = []
    for device in ("cuda", "cpu"):
        train(make_spec(toy_run), tmp_path / device, device=device)
        results.append(
            float((tmp_path / device / "history.csv").read_text().splitlines()[-1].split(",")[2])
        )
    assert "every step is one CUDA graph" in caplog.text
    assert results[0] == pytest.approx(results[1], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")
def test_a_step_does_not_wait_for_the_gpu(toy_run, tmp_path, monkeypatch):
    trainer = Trainer(make_spec(toy_run), tmp_path / "run", device="cuda")
    monkeypatch.setattr(graph, "STEP", 10)  # one size for all batches: the first step records it
    trainer.gradient.usual_atoms *= 2
    trainer.gradient.usual_pairs *= 2
    trainer.train_step()  # records the graph, looks at the loss
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not trainer.gradient.broken
