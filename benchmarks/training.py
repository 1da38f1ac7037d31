"""A QM9-like training end to end: batches drawn from a data set, and its peak memory.

`python -m benchmarks.training CONTENDER` trains 100 steps in a process of its own and prints the
memory it took. Every contender holds its data in memory with neighbours computed beforehand,
which is the best case for the peers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.cases import model_for, qm9_like
from benchmarks.peers import PEERS, Edges
from schnet.data.splits import make_split, save_split
from schnet.data.store import Property, Store, Structure, write_store
from schnet.data.structures import Structures

MOLECULES, BATCH = 2000, 32
SHAPE = dict(n_interactions=6, n_features=64, r_max=20.0)
CONTENDERS = ("engine", "engine, no loading", "table (PyTorch)", "SchNetPack", "PyG")


def _atoms(data: Structures, k: int):
    a, b = int(data.offsets[k]), int(data.offsets[k + 1])
    return data.atomic_numbers[a:b].long(), data.positions[a:b]


def trainer(data: Structures, engine: str, threads: int, folder: Path):
    """A Trainer of this project on the molecules, written to a store as a converter does."""
    from schnet.run import make_spec
    from schnet.training.loop import Trainer

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(len(data), generator=generator)
    path = folder / "molecules.h5"
    rows = (
        Structure(str(k), z.numpy(), r.numpy(), {"energy": float(targets[k])})
        for k in range(len(data))
        for z, r in [_atoms(data, k)]
    )
    write_store(path, rows, {"energy": Property("eV", "total energy")}, name="molecules")
    store = Store(path)
    save_split(
        folder / "split.npz",
        store,
        make_split(store, n_train=len(data) - 64, n_validation=32, seed=0),
    )
    spec = make_spec(
        dict(
            dataset="molecules",
            data=str(path),
            split=str(folder / "split.npz"),
            target="energy",
            model=SHAPE,
            engine=engine,
        )
    )
    return Trainer(spec, folder / "run", threads=threads)


def peer_steps(name: str, data: Structures):
    """An iterator that trains one step of a peer, its own loader included, when it is advanced."""
    peer = PEERS[name][1](model_for(SHAPE["n_interactions"], SHAPE["n_features"], SHAPE["r_max"]))
    optimiser = torch.optim.Adam(peer.parameters(), lr=1e-9)
    batches = _pyg_batches(data) if name == "PyG" else _schnetpack_batches(data)
    for z, positions, i, j, structure in batches:
        edges = Edges(z, i, j, structure, BATCH)
        energies, _ = peer(edges, positions, False, True)
        optimiser.zero_grad()
        energies.square().mean().backward()
        optimiser.step()
        yield


def _ordered(n: int):
    i, j = torch.triu_indices(n, n, 1)
    return torch.cat([i, j]), torch.cat([j, i])


def _pyg_batches(data):
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader

    items = []
    for k in range(len(data)):
        z, r = _atoms(data, k)
        i, j = _ordered(len(z))
        items.append(Data(z=z, pos=r, edge_index=torch.stack([j, i])))
    loader = DataLoader(items, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for b in loader:
            yield b.z, b.pos, b.edge_index[1], b.edge_index[0], b.batch


def _schnetpack_batches(data):
    import schnetpack.properties as k
    from schnetpack.data.loader import AtomsLoader

    items = []
    for n in range(len(data)):
        z, r = _atoms(data, n)
        i, j = _ordered(len(z))
        items.append(
            {
                k.idx: torch.tensor([n]),
                k.n_atoms: torch.tensor([len(z)]),
                k.Z: z,
                k.R: r,
                k.idx_i: i,
                k.idx_j: j,
            }
        )
    loader = AtomsLoader(items, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for b in loader:
            yield b[k.Z], b[k.R], b[k.idx_i], b[k.idx_j], b[k.idx_m]


def steps(name: str, threads: int, folder: Path):
    """A function that trains one step of a contender; ImportError where a peer is not installed."""
    data = qm9_like(MOLECULES)
    if name in PEERS:
        iterator = peer_steps(name, data)
        next(iterator)
        return lambda: next(iterator)
    t = trainer(data, "native" if name.startswith("engine") else "table", threads, folder)
    if name != "engine, no loading":
        return t.train_step
    batch = t.training.structures.batch(t.state.next_indices(len(t.training)))
    return lambda: engine_step(t, batch)


def engine_step(t, batch):
    """The engine's part of a training step: gradients on a batch that is there, and Adam."""
    t.flat.tensor.grad.zero_()
    t.engine(batch, False)[0].square().mean().backward()
    t.state.optimiser.step(1e-9)


def memory(name: str, threads: int) -> dict | None:
    """Peak memory (MB) of 100 steps in a fresh process, and how much of it came after the imports.

    None without the peer.
    """
    command = [sys.executable, "-m", "benchmarks.training", name, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _peak() -> float:
    """MB; not ru_maxrss, which a process inherits from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    name, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    if name == "PyG":
        import torch_geometric.loader  # noqa: F401
    elif name == "SchNetPack":
        PEERS[name][1](model_for(1, 16, 5.0))
    else:
        import schnet.training.loop  # noqa: F401
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        step = steps(name, threads, Path(folder))
        for _ in range(100):
            step()
    print(json.dumps({"peak_mb": _peak(), "after_imports_mb": _peak() - before}))
