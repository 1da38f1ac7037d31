"""Verbs that put trained models to work: relaxation, normal modes, dynamics."""

from __future__ import annotations

import gc
import math

from schnet.cli.options import add_compute, add_engine, add_verb
from schnet.files import write_text

XTB = "gfn2-xtb"


def _structure(args):
    """The structure of the command line: the last one of its file."""
    from schnet.data.structures import read_images

    atoms = read_images(args.structure, index=None)[-1]
    atoms.calc = None
    return atoms


def _options(args) -> dict:
    """What the functions pass on to the calculator."""
    import torch

    gc.freeze()  # what is loaded by now is no garbage: the collector would look through it again
    torch.set_num_threads(args.threads)
    return {"device": args.device, "threads": args.threads, "engine": args.engine}


def _method(name: str):
    """A model file, or GFN2-xTB by name."""
    if name.lower() != XTB:
        return name
    from schnet.reference.xtb import XTB as Calculator

    return Calculator(accuracy=0.01)  # the usual noise of forces is as large as what is sought


def relax(args):
    """Relax a structure to a minimum of a model's energy."""
    from schnet.simulation.relax import largest_force, relax

    atoms = relax(
        _structure(args),
        args.model,
        args.output,
        fmax=args.fmax,
        optimizer=args.optimizer,
        steps=args.steps,
        cell=args.cell,
        **_options(args),
    )
    print(
        f"{args.output}/relaxed.extxyz: {atoms.get_potential_energy():.6f} eV, "
        f"largest force {largest_force(atoms):.2g} eV/Å"
    )


def modes(args):
    """Normal modes of a structure, and how those of other models differ."""
    from schnet.simulation.modes import modes

    single = len(args.model) == 1
    found = modes(
        _structure(args),
        _method(args.model[0]) if single else args.model,
        args.output,
        others=[_method(name) for name in args.compare],
        relaxed=not args.no_relax,
        fmax=args.fmax,
        method=args.method,
        tolerance=args.tolerance,
        **_options(args),
    )
    for _, row in found.table().drop_duplicates("group").iterrows():
        frequency = row["frequency_cm-1"]
        text = f"{-frequency:9.1f}i" if row["imaginary"] else f"{frequency:9.1f} "
        times = "" if row["degeneracy"] == 1 else f"({row['degeneracy']} times)"
        print(f"{text} cm⁻¹ {times}")
    print(f"{args.output}/modes.csv: {len(found.frequencies)} modes, {found.n_imaginary} imaginary")


def md(args):
    """Molecular dynamics with a model."""
    from schnet.simulation.md import md

    md(
        _structure(args),
        args.model,
        args.output,
        steps=args.steps,
        timestep=args.timestep,
        temperature=args.temperature,
        thermostat=args.thermostat,
        friction=args.friction,
        interval=args.interval,
        checkpoint=args.checkpoint,
        seed=args.seed,
        **_options(args),
    )
    print(f"{args.output}/trajectory.extxyz, {args.output}/log.csv")


def pimd(args):
    """Path-integral molecular dynamics with a model, by i-PI."""
    from schnet.simulation.pimd import pimd

    path = pimd(
        _structure(args),
        args.model,
        args.output,
        beads=args.beads,
        steps=args.steps,
        timestep=args.timestep,
        temperature=args.temperature,
        thermostat=args.thermostat,
        tau=args.tau,
        interval=args.interval,
        checkpoint=args.checkpoint,
        seed=args.seed,
        **_options(args),
    )
    print(f"{path}, {args.output}/log.csv")


def observables(args):
    """Means and errors of a trajectory: distances, temperature, energies, drift."""
    from schnet.simulation.observables import observables, read_frames

    found = observables(
        read_frames(args.folder), neighbours=args.neighbours, equilibration=args.discard
    )
    for _, row in found.iterrows():
        print(f"{row['observable']:32} {_with_error(row['mean'], row['error'])} {row['unit']}")
    print(f"{found.attrs['frames']} frames after the first {args.discard:.0%}")
    if args.output:
        write_text(args.output, found.to_csv(index=False))


def _with_error(value: float, error: float) -> str:
    """A number with two digits of its error, and no more of its own."""
    if not 0 < error < math.inf:
        return f"{value:.6g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def ipi_driver(args):
    """Answer an i-PI that listens at a socket."""
    from schnet.simulation.ipi_driver import ipi_driver

    ipi_driver(
        _structure(args),
        args.model,
        unix=args.unix,
        host=args.host,
        port=args.port,
        **_options(args),
    )


def _add_inputs(p, output: bool = True):
    p.add_argument("structure", help="any file that ASE reads; of several structures the last")
    p.add_argument(
        "model",
        nargs="+",
        help="model file, or a name of `schnet models`; several are a committee",
    )
    if output:
        p.add_argument("-o", "--output", required=True, help="folder; given again, it continues")
    add_engine(p)
    add_compute(p)


def _add_dynamics(p, interval: int, checkpoint: int):
    p.add_argument("--steps", type=int, required=True, help="how many in all")
    p.add_argument("--timestep", type=float, default=0.5, help="fs (default: 0.5)")
    p.add_argument("--temperature", type=float, default=300.0, help="K (default: 300)")
    p.add_argument(
        "--interval", type=int, default=interval, help=f"steps between frames (default: {interval})"
    )
    p.add_argument(
        "--checkpoint", type=int, default=checkpoint,
        help=f"steps between checkpoints (default: {checkpoint})",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="of velocities and noise (default: 0)")


def add_verbs(verbs):
    """relax, modes, md, pimd, observables, ipi-driver"""
    p = add_verb(verbs, "relax", relax)
    _add_inputs(p)
    p.add_argument("--fmax", type=float, default=0.01, help="largest force, eV/Å (default: 0.01)")
    p.add_argument("--optimizer", default="BFGS", help="ASE's, by name (default: BFGS)")
    p.add_argument("--steps", type=int, default=1000, help="give up after so many (default: 1000)")
    p.add_argument("--cell", action="store_true", help="relax the cell as well")

    p = add_verb(verbs, "modes", modes)
    _add_inputs(p)
    p.add_argument(
        "--compare", action="append", default=[], metavar="MODEL",
        help=f"other model file, or {XTB}; may be given several times",
    )  # fmt: skip
    p.add_argument("--no-relax", action="store_true", help="modes of the structure as it is")
    p.add_argument("--fmax", type=float, default=1e-5, help="relax to, eV/Å (default: 1e-5)")
    p.add_argument(
        "--method", default="autodiff", choices=("autodiff", "finite"), help="of the Hessian"
    )
    p.add_argument(
        "--tolerance", type=float, default=0.5, help="degenerate within, cm⁻¹ (default: 0.5)"
    )

    p = add_verb(verbs, "md", md)
    _add_inputs(p)
    _add_dynamics(p, 20, 1000)
    p.add_argument("--thermostat", default="langevin", help="langevin or none")
    p.add_argument("--friction", type=float, default=0.01, help="Langevin's, 1/fs (default: 0.01)")

    p = add_verb(verbs, "pimd", pimd)
    _add_inputs(p)
    _add_dynamics(p, 100, 5000)
    p.add_argument("--beads", type=int, default=8, help="P (default: 8)")
    p.add_argument("--thermostat", default="pile_l", help="pile_l or pile_g")
    p.add_argument("--tau", type=float, default=100.0, help="of the centroid, fs (default: 100)")

    p = add_verb(verbs, "observables", observables)
    p.add_argument("folder", help="of md or pimd")
    p.add_argument(
        "--neighbours", type=int, default=1, help="nearest of every atom that count (default: 1)"
    )
    p.add_argument(
        "--discard", type=float, default=0.1, help="share left out at the beginning (default: 0.1)"
    )
    p.add_argument("-o", "--output", help="also write a CSV file")

    p = add_verb(verbs, "ipi-driver", ipi_driver)
    _add_inputs(p, output=False)
    p.add_argument("--unix", metavar="NAME", help="UNIX socket /tmp/ipi_NAME")
    p.add_argument("--host", default="localhost", help="internet socket (default: localhost)")
    p.add_argument("--port", type=int, help="internet socket (default: 31415)")
