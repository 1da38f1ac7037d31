"""Verbs that show what a model has learned."""

from __future__ import annotations

from schnet.cli.options import add_device, add_verb


def potential(args):
    """Local chemical potential of a molecule (on a surface) or a crystal (on a cut)."""
    from schnet.analysis.files import potential_file

    potential_file(
        args.model,
        args.structure,
        args.output,
        probe=args.probe,
        spacing=args.spacing,
        isovalue=args.isovalue,
        size=args.size,
        points=args.points,
        device=args.device,
    )


def add_verbs(verbs):
    """potential"""
    p = add_verb(verbs, "potential", potential)
    p.add_argument("model", help="model file")
    p.add_argument("structure", help="any file ASE reads, with one structure")
    p.add_argument("-o", "--output", required=True, help="file to write (html, png, pdf, csv)")
    p.add_argument("--probe", default="C", help="element of the probe atom (default: C)")
    p.add_argument(
        "--spacing", type=float, default=0.12, help="molecules: grid in Å (default: 0.12)"
    )
    p.add_argument(
        "--isovalue",
        type=float,
        default=3.7,
        help="molecules: the surface is where the inverse squared distances from all atoms sum to "
        "this, in Å^-2 (default: 3.7)",
    )
    p.add_argument("--size", type=float, default=10.0, help="crystals: side in Å (default: 10)")
    p.add_argument("--points", type=int, default=101, help="crystals: per side (default: 101)")
    add_device(p)
