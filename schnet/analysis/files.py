"""The local chemical potential of any structure file: a picture, a page to turn, or a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from schnet.analysis import surface
from schnet.analysis.plane import cut_plane
from schnet.analysis.potential import local_potential
from schnet.data.structures import read_images
from schnet.errors import ConfigError, DataError
from schnet.files import atomic, write_text
from schnet.models import load_model
from schnet.trained import find_model

SUFFIXES = (".html", ".png", ".pdf", ".csv")


def potential_file(
    model_path,
    structure,
    output,
    *,
    probe: str = "C",
    spacing: float = 0.12,
    isovalue: float = surface.ISOVALUE,
    size: float = 10.0,
    points: int = 101,
    device: str = "cpu",
) -> None:
    """Write Ω on a surface around a molecule, or on a cut through a crystal.

    Args:
        model_path: model file.
        structure: any file that ASE reads, with one structure.
        output: .html (molecules), .png, .pdf or .csv.
        probe: symbol of the probe's element.
        spacing, isovalue: of the surface, see ``isosurface``.
        size, points: of the cut, see ``cut_plane``.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: another suffix, or a page to turn of a crystal.
        DataError: the file cannot be read or holds several structures; see also
            ``local_potential``, ``isosurface`` and ``cut_plane``.
    """
    output = Path(output)
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"{output}: the suffix must be one of {', '.join(SUFFIXES)}")
    model_path = find_model(model_path)
    model = load_model(model_path)
    if not model.elements.any():
        print(f"{model_path}: does not tell the elements it was trained on; none is refused")
    atoms = _one_structure(structure)
    label = f"Ω({probe}) / {model.unit}"
    shape = "" if atoms.pbc.any() else f", Σ‖r − rᵢ‖⁻² = {isovalue:g} Å⁻²"
    title = f"{atoms.get_chemical_formula()}{shape}\n{Path(structure).name}, {model_path}"
    try:
        if atoms.pbc.any():
            plane = cut_plane(atoms, size, points)
            values = local_potential(model, atoms, plane.points, probe, device=device)
            write_cut(output, title, label, plane, values)
        else:
            around = surface.isosurface(atoms, spacing=spacing, isovalue=isovalue)
            values = local_potential(model, atoms, around.vertices, probe, device=device)
            write_surface(output, title, label, atoms, around, values)
    except DataError as error:
        raise DataError(f"{structure}: {error}") from error
    print(
        f"{output}: {len(values):,} points, {label} from {values.min():.4g} to {values.max():.4g}"
    )


def _one_structure(path) -> Atoms:
    """The only structure of a file. Raises DataError where there is none, or more."""
    images = read_images(path, index=None if "@" in Path(path).name else ":")
    if len(images) != 1:
        raise DataError(
            f"{path}: {len(images)} structures, one is expected; name one like {path}@0"
        )
    return images[0]


def write_surface(
    output: Path, title: str, label: str, atoms: Atoms, around: surface.Surface, values: np.ndarray
) -> None:
    """Write values on a surface around a molecule, in the form that the suffix names."""
    if output.suffix == ".csv":
        x, y, z = around.vertices.round(4).T
        _write_csv(output, label, {"x": x, "y": y, "z": z}, values)
    elif output.suffix == ".html":
        page = surface.interactive(title, label, {title: around}, {"": {title: values}})
        write_text(output, page)
    else:
        _draw_surface(output, title, label, atoms, around, values)


def write_cut(output: Path, title: str, label: str, plane, values: np.ndarray) -> None:
    """Write values on a cut through a crystal. Raises ConfigError for .html: it has one side."""
    import matplotlib

    from schnet.figures import style

    if output.suffix == ".html":
        raise ConfigError(f"{output}: a cut through a crystal is flat; use .png, .pdf or .csv")
    if output.suffix == ".csv":
        x, y, z = plane.points.round(4).T
        _write_csv(output, label, {"x": x, "y": y, "z": z}, values)
        return
    with matplotlib.rc_context(style.settings()):
        picture, axes = style.grid(1, 1, (3.9, 3.3))
        plane.draw(axes[0, 0], values, label)
        axes[0, 0].set_title(title, fontsize=8)
        with atomic(output) as temporary:
            picture.savefig(temporary, dpi=200)


def _write_csv(output: Path, label: str, columns: dict, values: np.ndarray) -> None:
    """Points in Å and values, whose unit is in the head of their column."""
    write_text(output, pd.DataFrame(columns | {label: values.round(6)}).to_csv(index=False))


def _draw_surface(output, title, label, atoms, around, values) -> None:
    """The molecule and, beside it, the surface from the same direction."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    from schnet.figures import style

    rotation = surface.view(atoms)
    colours = ScalarMappable(Normalize(*surface.limits([values])), surface.COLOURS)
    with matplotlib.rc_context(style.settings()):
        picture, ((left, right),) = style.grid(1, 2, (6.4, 2.6))
        surface.draw_molecule(left, atoms, rotation)
        surface.draw_surface(right, around, colours.to_rgba(values), rotation)
        for ax in (left, right):
            surface.frame(ax, around, rotation)
        picture.suptitle(title, fontsize=8)
        picture.colorbar(colours, ax=right, extend="both", shrink=0.8, pad=0.02, label=label)
        with atomic(output) as temporary:
            picture.savefig(temporary, dpi=200)
