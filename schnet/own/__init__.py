"""A model of one's own data in one command: convert, split, train, evaluate, draw, tell."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from schnet import methods
from schnet.data.splits import make_split, save_split
from schnet.data.store import Store
from schnet.errors import known_or_nearest
from schnet.evaluation import evaluate
from schnet.files import write_yaml
from schnet.own.checks import (
    warn_of_contradictions,
    warn_of_odd_labels,
    warn_of_repeated_structures,
)
from schnet.own.choices import SETTINGS, Wishes, as_begun, converted, settings, with_steps
from schnet.own.show import draw, tell
from schnet.run import Run

__all__ = ["Wishes", "train"]


def train(source, out, *, threads: int = 1, device: str = "cpu", **wishes) -> Path:
    """Train on a structure file, or a converted data set; continues after an interruption.

    Args:
        source: any file that ASE reads, with labels, or an HDF5 file of `schnet data convert`.
        out: folder; gets data.h5, split.npz, settings.yaml, what a run has (model.pt, run.yaml,
            history.csv, metrics.json, predictions.h5), learning.png and parity.png.
        threads, device: of the training.
        wishes: the attributes of `Wishes`; what is not given is chosen from the data.

    Returns:
        The model file.

    Raises:
        ConfigError, DataError: see `convert_file`; too few structures; or the folder holds the
            training of other data or wishes.

    Example:
        >>> from ase.build import molecule
        >>> from ase.calculators.emt import EMT
        >>> frames = []
        >>> for seed in range(40):
        ...     atoms = molecule("CH3CH2OH")
        ...     atoms.rattle(0.05, seed=seed)
        ...     atoms.calc = EMT()
        ...     forces = atoms.get_forces()  # and the energy: both are written with the frame
        ...     frames.append(atoms)
        >>> from ase.io import write
        >>> write("frames.extxyz", frames)
        >>> train("frames.extxyz", "my_model", steps=100)  # doctest: +ELLIPSIS
        <BLANKLINE>
        ...
        PosixPath('my_model/model.pt')
    """
    for name in wishes:
        known_or_nearest(name, [f.name for f in fields(Wishes)], "setting", "schnet.train")
    known_or_nearest(device, ["cpu", "cuda"], "device", "device")
    out, asked = Path(out), Wishes(**wishes)
    data, target, forces = converted(source, out, asked)
    store = Store(data)
    spec = settings(store, target, forces, asked)
    split = out / "split.npz"
    spec = replace(spec, data=str(data), split=str(split))
    parts = make_split(
        store, n_train=spec.n_train or 0, n_validation=spec.n_validation or 0, seed=asked.seed
    )
    warn_of_odd_labels(store, target)
    warn_of_repeated_structures(store, parts, source)
    if (out / SETTINGS).exists():
        spec = as_begun(spec, out, asked)
    else:
        save_split(split, store, parts)
        spec = with_steps(spec, asked, threads, device)
        write_yaml(out / SETTINGS, spec.stated())
    methods.fit(spec, out, threads=threads, device=device)
    metrics = evaluate(out, threads=threads, device=device)
    draw(Run(store.name, out, spec))
    tell(out, metrics, parts, store, spec, asked.unit)
    warn_of_contradictions(Run(store.name, out, spec), metrics, store)
    return out / "model.pt"
