"""A trained model compiled ahead of time, for programs without Python.

The package (`.pt2`, AOTInductor) takes one structure and its pairs of neighbours and gives energy
and forces. The forces are part of the traced graph: no automatic differentiation is needed where it
runs, which is what ``torch.export`` and TorchScript cannot give for a gradient taken inside.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from schnet.data.structures import Batch
from schnet.errors import ModelError, first_line
from schnet.files import atomic
from schnet.models import Model, load_model
from schnet.trained import find_model

READOUTS = ("sum", "mean")


class _OneStructure(Batch):
    """A batch of one structure, in operations that know no number of atoms."""

    @property
    def structure(self) -> Tensor:
        return torch.zeros_like(self.atomic_numbers)

    @property
    def n_atoms(self) -> Tensor:
        return torch.ones_like(self.atomic_numbers).sum()[None]

    def __len__(self):
        return 1


class Potential(nn.Module):
    """Energy and forces of one structure from plain tensors, the signature of the package."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(
        self, positions: Tensor, atomic_numbers: Tensor, i: Tensor, j: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energy [] in float64 with offsets, and forces [N, 3], in the units of the model.

        Args:
            positions: [N, 3] in Å.
            atomic_numbers: [N] int64.
            i, j: [P] int64, every pair of neighbours once.
            shift: [P, 3] in Å: the neighbour of atom i is at positions[j] + shift.
        """
        model = self.model
        ones = torch.ones_like(shift[:, 0])
        neighbours = torch.zeros_like(positions[:, 0]).index_add(0, i, ones).index_add(0, j, ones)
        batch = _OneStructure(
            atomic_numbers,
            positions,
            torch.zeros_like(i),  # nothing below asks for the bounds of structures
            torch.zeros_like(i),
            i,
            j,
            shift,
            neighbours.clamp(min=1),
        )
        with torch.enable_grad():
            moved = positions.detach().requires_grad_()
            output = model.atomwise(replace(batch, positions=moved))
            mean = model.hyperparameters.readout == "mean"
            energy = model.scale.to(output.dtype) * (output.mean() if mean else output.sum())
            (gradient,) = torch.autograd.grad(energy, moved)
        references = model.atomrefs[atomic_numbers] + model.mean
        offset = references.mean() if mean else references.sum()
        return energy.detach().double() + offset, -gradient


def export(model, output, *, dtype: torch.dtype = torch.float64) -> Path:
    """Compile a model into a package.

    Args:
        model: model file, or a name that `schnet models` lists.
        output: file to write, ending in .pt2.
        dtype: of positions and forces.

    Raises:
        ModelError: the model is no sum or mean of contributions of atoms, the file's name has
            another ending, or the compiler fails (it needs a C++ compiler).
    """
    output = Path(output)
    if output.suffix != ".pt2":
        raise ModelError(f"{output}: the name of a compiled model ends in .pt2")
    file = find_model(model)
    network = load_model(file).to(dtype).eval()
    if (
        network.hyperparameters.readout not in READOUTS
        or type(network).forward is not Model.forward
    ):
        raise ModelError(f"{file}: is no sum or mean of contributions of atoms")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            package = _compile(Potential(network), Path(folder) / output.name, dtype)
            with atomic(output) as temporary:
                shutil.copyfile(package, temporary)
    except Exception as error:  # the compiler raises anything
        raise ModelError(f"{file}: cannot be compiled ({first_line(error)})") from error
    return output


def _compile(potential: Potential, path: Path, dtype: torch.dtype) -> str:
    from torch.export import Dim
    from torch.export import export as trace
    from torch.fx.experimental.proxy_tensor import make_fx

    known = potential.model.elements.nonzero().flatten()
    z = int(known[0]) if len(known) else 6
    numbers = torch.full((5,), z)
    positions = 1.5 * torch.eye(5, 3, dtype=dtype) + torch.arange(5)[:, None].to(dtype)
    i, j = torch.combinations(torch.arange(5), 2).T.contiguous()
    example = (positions, numbers, i, j, torch.zeros(len(i), 3, dtype=dtype))
    # the gradient becomes operations of the graph, for any number of atoms and pairs
    graph = make_fx(potential, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    atoms, pairs = Dim("atoms", min=2), Dim("pairs", min=2)
    sizes = ({0: atoms}, {0: atoms}, {0: pairs}, {0: pairs}, {0: pairs})
    program = trace(graph, example, dynamic_shapes=sizes, strict=False)
    return torch._inductor.aoti_compile_and_package(program, package_path=str(path))
