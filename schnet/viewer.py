"""Structures that turn under the mouse or a finger, in a page that needs no network."""

from __future__ import annotations

import html
import json

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from schnet.data.drawing import (
    LONGEST_ARROW,
    RADIUS,
    bonds,
    cell_edges,
    first_view,
    force_arrows,
)
from schnet.data.store import Structure
from schnet.page import page

#: draws every canvas.structure from its data; positions are in Å, y points up, z to the viewer
SCRIPT = """
for (const canvas of document.querySelectorAll("canvas.structure")) {
  const s = JSON.parse(canvas.dataset.structure);
  const reach = 1.05 * Math.max(...s.atoms.map((p, k) => Math.hypot(...p) + s.radii[k]),
    ...s.edges.flat().map(p => Math.hypot(...p)));
  let axes = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], last = null;
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, size = canvas.clientWidth;
    canvas.width = canvas.height = size * ratio;
    const pen = canvas.getContext("2d"), unit = size * ratio / (2 * reach);
    const turn = p => axes.map(a => a[0] * p[0] + a[1] * p[1] + a[2] * p[2]);
    const at = p => [size * ratio / 2 + unit * p[0], size * ratio / 2 - unit * p[1]];
    const line = (a, b, color, width) => {
      pen.strokeStyle = color; pen.lineWidth = width * unit;
      pen.beginPath(); pen.moveTo(...at(a)); pen.lineTo(...at(b)); pen.stroke();
    };
    const points = s.atoms.map(turn), jobs = [];
    for (const [a, b] of s.bonds) jobs.push([Math.min(points[a][2], points[b][2]) - 0.01,
      () => line(points[a], points[b], "#888", 0.12)]);
    for (const [a, b] of s.edges) { const [p, q] = [turn(a), turn(b)];
      jobs.push([Math.min(p[2], q[2]), () => line(p, q, "#0072b2", 0.04)]); }
    points.forEach((p, k) => jobs.push([p[2], () => {
      pen.beginPath(); pen.arc(...at(p), s.radii[k] * unit, 0, 2 * Math.PI);
      pen.fillStyle = s.colors[k]; pen.fill();
      pen.strokeStyle = "#000"; pen.lineWidth = ratio; pen.stroke();
      pen.fillStyle = "#000"; pen.font = `${1.1 * s.radii[k] * unit}px sans-serif`;
      pen.textAlign = "center"; pen.textBaseline = "middle"; pen.fillText(s.symbols[k], ...at(p));
    }]));
    s.arrows.forEach((f, k) => { const p = points[k], d = turn(f);
      jobs.push([p[2] + 1, () => line(p, p.map((x, i) => x + d[i]), "#d55e00", 0.06)]); });
    jobs.sort((one, other) => one[0] - other[0]).forEach(job => job[1]());
  };
  const spin = (i, j, angle) => {
    const [c, d] = [Math.cos(angle), Math.sin(angle)], [a, b] = [axes[i], axes[j]];
    axes[i] = a.map((x, k) => c * x + d * b[k]); axes[j] = b.map((x, k) => c * x - d * a[k]);
  };
  canvas.onpointerdown = e => {
    last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId);
  };
  canvas.onpointerup = canvas.onpointercancel = () => last = null;
  canvas.onpointermove = e => {
    if (!last) return;
    spin(0, 2, (e.clientX - last[0]) / 100); spin(2, 1, (e.clientY - last[1]) / 100);
    last = [e.clientX, e.clientY]; draw();
  };
  new ResizeObserver(draw).observe(canvas);
}
"""
STYLE = (
    "<style>.structures{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));"
    "gap:1rem}.structures figure{text-align:center;font-size:12px}"
    "canvas.structure{width:100%;aspect-ratio:1;cursor:grab;touch-action:none}</style>"
)


def _content(structure: Structure) -> dict:
    """What the script draws: lengths in Å, around the middle of the structure."""
    view = first_view(structure)
    z, r = structure.atomic_numbers, structure.positions @ view.T
    edges = np.zeros((0, 2, 3))
    if structure.cell is not None:
        edges = cell_edges(structure.cell) @ view.T
    points = np.concatenate([r, edges.reshape(-1, 3)])
    middle = (points.min(0) + points.max(0)) / 2
    arrows = force_arrows(structure) @ view.T
    colors = [f"rgb({','.join(f'{255 * c:.0f}' for c in jmol_colors[n])})" for n in z]
    return {
        "atoms": (r - middle).round(3).tolist(),
        "symbols": [chemical_symbols[n] for n in z],
        "radii": (RADIUS * covalent_radii[z]).round(3).tolist(),
        "colors": colors,
        "bonds": bonds(structure),
        "edges": (edges - middle).round(3).tolist(),
        "arrows": arrows.round(3).tolist(),
    }


def _box(text: str, structure: Structure) -> str:
    """A structure with a text below it."""
    content = html.escape(json.dumps(_content(structure)))
    return (
        f"<figure><canvas class='structure' data-structure='{content}'></canvas>"
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
    )


def structures_page(title: str, structures: dict[str, Structure]) -> str:
    """A page of structures that can be turned.

    Args:
        title: of the page.
        structures: by what stands below each.
    """
    boxes = "".join(_box(text, structure) for text, structure in structures.items())
    longest = f"Lines: forces, the longest of a structure drawn as {LONGEST_ARROW} Å."
    hint = f"<p class='soft'>Drag to turn. {longest}</p>"
    body = f"{STYLE}{hint}<div class='structures'>{boxes}</div><script>{SCRIPT}</script>"
    return page(title, body)
