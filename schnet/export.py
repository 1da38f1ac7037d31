"""A trained model for programs without Python: compiled ahead of time (AOTInductor), or as ONNX.

Both take one structure and its pairs of neighbours and give energy and forces. The forces are part
of the traced graph: no automatic differentiation is needed where it runs, which is what
``torch.export`` and TorchScript cannot give for a gradient taken inside.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export import export as trace
from torch.fx.experimental.proxy_tensor import make_fx

from schnet.data.structures import Batch
from schnet.errors import ModelError, first_line
from schnet.files import atomic
from schnet.models import Model, load_model
from schnet.trained import find_model

READOUTS = ("sum", "mean")
INPUTS = ["positions", "atomic_numbers", "i", "j", "shift"]
OUTPUTS = ["energy", "forces"]


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
    """Write energies and forces of a model as a program.

    Args:
        model: model file, or a name that `schnet models` lists.
        output: file to write; .pt2 is compiled for this kind of CPU, .onnx is a graph.
        dtype: of positions and forces.

    Raises:
        ModelError: the model is no sum or mean of contributions of atoms, the file's name has
            another ending, a package for ONNX is missing, or the compiler fails (it needs a C++
            compiler).
    """
    output = Path(output)
    if output.suffix not in WRITERS:
        raise ModelError(f"{output}: the name must end in {' or '.join(WRITERS)}")
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
            written = Path(folder) / output.name
            WRITERS[output.suffix](_trace(Potential(network), dtype), written)
            with atomic(output) as temporary:
                shutil.copyfile(written, temporary)
    except ImportError as error:
        raise ModelError(f"{output}: {error}; pip install onnx onnxscript") from error
    except Exception as error:  # the compiler raises anything
        raise ModelError(
            f"{file}: {network.name} cannot be exported for any number of atoms: PyTorch does not "
            f"trace it ({first_line(error)})"
        ) from error
    return output


def _trace(potential: Potential, dtype: torch.dtype) -> ExportedProgram:
    """The operations of energy and forces, for any number of atoms and pairs."""
    known = potential.model.elements.nonzero().flatten()
    z = int(known[0]) if len(known) else 6
    numbers = torch.full((5,), z)
    positions = 1.5 * torch.eye(5, 3, dtype=dtype) + torch.arange(5)[:, None].to(dtype)
    i, j = torch.combinations(torch.arange(5), 2).T.contiguous()
    example = (positions, numbers, i, j, torch.zeros(len(i), 3, dtype=dtype))
    # the gradient becomes operations of the graph
    graph = make_fx(potential, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    atoms, pairs = Dim("atoms", min=2), Dim("pairs", min=2)
    sizes = ({0: atoms}, {0: atoms}, {0: pairs}, {0: pairs}, {0: pairs})
    return trace(graph, example, dynamic_shapes=sizes, strict=False)


def _compile(program: ExportedProgram, path: Path) -> None:
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^x) in operations that ONNX Runtime has in double precision too."""
    return x.clamp(min=0) + torch.log(1 + torch.exp(-x.abs()))


def _to_onnx(program: ExportedProgram, path: Path) -> None:
    importlib.import_module("onnxscript")  # missing: said before PyTorch says it its way
    for name in ("onnx_ir", "onnxscript", "torch.onnx"):  # they tell every constant that they fold
        logging.getLogger(name).setLevel(logging.ERROR)
    in_onnx = {torch.ops.aten.softplus.default: _softplus}
    program = program.run_decompositions(in_onnx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about PyTorch's own code
        graph = torch.onnx.export(
            program, input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False
        )
    assert graph is not None  # it is one with dynamo=True
    graph.save(path)


#: what writes a program, by the ending of the file's name
WRITERS: dict[str, Callable[[ExportedProgram, Path], None]] = {".pt2": _compile, ".onnx": _to_onnx}
