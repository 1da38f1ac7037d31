"""Surfaces around molecules: where they are, and pictures of them with colours for values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

from schnet.errors import DataError

ISOVALUE = 3.7  # Å^-2
MAX_GRID = 10_000_000  # points of the grid that a surface is found on
COLOURS = "RdYlBu_r"
LIGHT = np.array([-0.35, 0.45, 0.82])  # where light comes from, seen by the viewer
MARGIN = 0.2  # Å beside a surface, both sides together
AMBIENT = 0.55  # brightness of what the light does not reach


@dataclass(frozen=True)
class Surface:
    """A triangulated surface.

    Attributes:
        vertices: [V, 3] in Å.
        triangles: [T, 3], indices of vertices.
        normals: [V, 3], unit vectors that point outwards.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray


def isosurface(atoms: Atoms, *, spacing: float = 0.12, isovalue: float = ISOVALUE) -> Surface:
    """The surface sum_i |r - r_i|^-2 = isovalue around a molecule (Fig. 5), by marching cubes.

    The paper prints sum_i |r - r_i| = 3.7 Å. No point of any of its molecules has so small a sum of
    distances; with the exponent -2 the equation gives one smooth surface around all atoms, some
    0.6 to 1.4 Å from the nearest (docs/protocol.md).

    Args:
        atoms: a molecule.
        spacing: of the grid in Å.
        isovalue: in Å^-2.

    Raises:
        DataError: the spacing or the isovalue is not positive, the grid would have more than
            MAX_GRID points, or the spacing is too wide to see a surface.
    """
    from skimage.measure import marching_cubes

    if not (spacing > 0 and isovalue > 0):
        raise DataError(f"spacing {spacing} Å, isovalue {isovalue} Å^-2: must be positive")
    r = atoms.positions
    # all n atoms at one place would have their surface at this distance
    margin = np.sqrt(len(atoms) / isovalue) + 2 * spacing
    start = r.min(0) - margin
    shape = np.ceil((np.ptp(r, axis=0) + 2 * margin) / spacing).astype(int) + 1
    count = float(np.prod(shape.astype(float)))
    if count > MAX_GRID:
        wider = spacing * (count / MAX_GRID) ** (1 / 3)
        raise DataError(
            f"{atoms.get_chemical_formula()}: a surface with a spacing of {spacing} Å takes "
            f"{count:,.0f} grid points, more than {MAX_GRID:,}; use at least {1.02 * wider:.2g} Å"
        )
    x, y, z = (start[k] + spacing * np.arange(shape[k]) for k in range(3))
    total = np.zeros(shape)
    for a, b, c in r:
        squares = (x - a)[:, None, None] ** 2 + (y - b)[:, None] ** 2 + (z - c) ** 2
        total += 1 / np.maximum(squares, 1e-12)
    # its -1/2 power is about linear in the distance: interpolation between grid points is accurate
    field = total**-0.5
    if field.min() >= isovalue**-0.5:
        raise DataError(f"a spacing of {spacing} Å is too wide to see a surface; use a smaller one")
    vertices, triangles, _, _ = marching_cubes(
        field, isovalue**-0.5, spacing=(spacing,) * 3, gradient_direction="ascent"
    )
    vertices = vertices.astype(float) + start
    return Surface(vertices, triangles.astype(np.int32), _normals(vertices, r))


def _normals(vertices: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Directions in which sum_i |r - r_i|^-2 decreases, unit vectors [V, 3]."""
    away = vertices[:, None] - positions
    direction = (away / (away**2).sum(2, keepdims=True) ** 2).sum(1)
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def view(atoms: Atoms, tilt: float = 38.0, turn: float = 18.0) -> np.ndarray:
    """A rotation that shows a molecule well: its long axis across, its plane tilted.

    Args:
        atoms: the molecule.
        tilt, turn: about the horizontal and the vertical axis, in degrees.

    Returns:
        [3, 3]; the rows are the viewer's right, up, and towards the viewer.
    """
    centred = atoms.positions - atoms.positions.mean(0)
    axes = np.linalg.svd(centred)[2]
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    a, b = np.radians([-tilt, turn])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_y @ about_x @ axes


def draw_surface(ax, surface: Surface, rgb: np.ndarray, rotation: np.ndarray) -> None:
    """Draw a surface, shaded, in a matplotlib panel with axes in Å; pixels also in a PDF.

    Args:
        ax: the panel.
        surface: what is drawn.
        rgb: colours of the vertices, [V, 3].
        rotation: see ``view``.
    """
    from matplotlib.collections import TriMesh
    from matplotlib.tri import Triangulation

    x, y, z = rotation @ surface.vertices.T
    normals = surface.normals @ rotation.T
    bright = AMBIENT + (1 - AMBIENT) * (normals @ (LIGHT / np.linalg.norm(LIGHT))).clip(0)
    colours = np.column_stack([rgb[:, :3] * bright[:, None], np.ones(len(rgb))])
    triangles = surface.triangles
    # colours of slivers run over their edges, their neighbours close the gaps
    broad = _heights(surface) > 0.15 * np.median(_heights(surface))
    triangles = triangles[broad & (normals[triangles, 2].mean(1) > -0.1)]
    order = np.argsort(z[triangles].mean(1))  # the nearest are drawn last
    mesh = TriMesh(Triangulation(x, y, triangles[order]), rasterized=True)
    mesh.set(facecolor=colours)
    ax.add_collection(mesh)


def _heights(surface: Surface) -> np.ndarray:
    """The smallest height of every triangle, [T] in Å."""
    a, b, c = np.moveaxis(surface.vertices[surface.triangles], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)  # twice
    return area / np.max([np.linalg.norm(s, axis=1) for s in (b - a, c - b, a - c)], axis=0)


def draw_molecule(ax, atoms: Atoms, rotation: np.ndarray) -> None:
    """Draw atoms and bonds in a matplotlib panel with axes in Å; rotation: see ``view``."""
    from ase.neighborlist import natural_cutoffs, neighbor_list
    from matplotlib.patches import Circle

    x, y, z = rotation @ atoms.positions.T
    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
    for a, b in zip(i, j, strict=True):
        if a < b:
            ax.plot(x[[a, b]], y[[a, b]], color="#777777", lw=1.6, zorder=z[[a, b]].min())
    for a in range(len(atoms)):
        size = 0.42 * covalent_radii[atoms.numbers[a]]
        look = {"fc": jmol_colors[atoms.numbers[a]], "ec": "#333333", "lw": 0.5}
        ax.add_patch(Circle((x[a], y[a]), size, zorder=z[a] + 0.01, **look))


def frame(ax, surface: Surface, rotation: np.ndarray, height: float | None = None) -> None:
    """Show a surface in the middle of a panel: the same scale in both directions, no axes.

    Args:
        ax: the panel.
        surface: what shall fit.
        rotation: see ``view``.
        height: of the panel in Å; None: that of the surface.
    """
    x, y, _ = rotation @ surface.vertices.T
    middle, half = (y.min() + y.max()) / 2, (height or np.ptp(y) + MARGIN) / 2
    ax.set(xlim=(x.min() - MARGIN / 2, x.max() + MARGIN / 2), ylim=(middle - half, middle + half))
    ax.set_aspect("equal")
    ax.axis("off")


def limits(values: list[np.ndarray]) -> tuple[float, float]:
    """Ends of a colour scale for all values together: their 2nd and 98th percentile."""
    if not values:
        return 0.0, 1.0
    low, high = np.percentile(np.concatenate(values), [2, 98])
    return float(low), float(max(high, low + 1e-9))


def interactive(
    title: str, label: str, surfaces: dict[str, Surface], values: dict[str, dict[str, np.ndarray]]
) -> str:
    """A page with surfaces to turn, one molecule at a time, that works without a network.

    Args:
        title: above them.
        label: of the colour bar.
        surfaces: by name of the molecule.
        values: of the vertices, by name of the model and then of the molecule.

    Returns:
        HTML, with plotly.js inside.
    """
    import plotly.graph_objects as go
    from matplotlib import colormaps
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=len(values), specs=[[{"type": "scene"}] * len(values)],
        subplot_titles=list(values), horizontal_spacing=0.02,
    )  # fmt: skip
    names, shown = list(surfaces), []
    for k, of_model in enumerate(values.values()):
        for name, value in of_model.items():
            x, y, z = surfaces[name].vertices.astype(np.float32).T
            a, b, c = surfaces[name].triangles.T
            mesh = go.Mesh3d(
                x=x, y=y, z=z, i=a, j=b, k=c, intensity=value.astype(np.float32),
                coloraxis="coloraxis", visible=name == names[0], name=name,
                lighting={"ambient": 0.6, "diffuse": 0.6, "specular": 0.15, "roughness": 0.6},
                hovertemplate="%{intensity:.4g}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(mesh, row=1, col=k + 1)
            shown.append(name)
    low, high = limits([value for of_model in values.values() for value in of_model.values()])
    steps = np.linspace(0, 1, 33)
    scale = [[float(s), "rgb({},{},{})".format(*colormaps[COLOURS](s, bytes=True))] for s in steps]
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [s == name for s in shown]}]}
        for name in names
    ]
    axes = {"visible": False, "showspikes": False}
    scene = {"aspectmode": "data", "xaxis": axes, "yaxis": axes, "zaxis": axes}
    figure.update_scenes(scene)
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": 1.06}
    figure.update_layout(
        title={"text": title, "y": 0.98, "yanchor": "top"},
        coloraxis={"colorscale": scale, "cmin": low, "cmax": high, "colorbar": {"title": label}},
        updatemenus=[{**menu, "xanchor": "left", "yanchor": "bottom"}] if len(names) > 1 else [],
        margin={"l": 10, "r": 10, "b": 10, "t": 130},
    )
    return figure.to_html(include_plotlyjs=True, full_html=True, div_id="surfaces")
