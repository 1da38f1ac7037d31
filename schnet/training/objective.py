"""What a training minimises: losses, the targets they are taken of, and the scale of the output."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from schnet.data.structures import Batch, Room, Structures
from schnet.engine import FlatParameters
from schnet.errors import ConfigError
from schnet.run import RunSpec

OFFSET_BATCH = 4096  # structures at a time when offsets are subtracted
MAX_Z = 100


def loss_function(
    spec: RunSpec,
    batch: Batch,
    energy: Tensor,
    forces: Tensor | None,
    target: Tensor,
    target_forces: Tensor | None,
) -> Tensor:
    """The training loss of a batch.

    ``loss: paper`` is the squared error, or for energies and forces Eq. 5,

        l = mean over structures of  ρ (E - Ê)² + 1/n Σ_i |F_i - F̂_i|²,

    with ρ = spec.rho, E = target, Ê = energy, F = target_forces, F̂ = forces, n = batch.n_atoms.
    ``loss: tf_code`` is what the authors' program minimises: half the sum over the batch, without
    1/n.

    Args:
        spec: says which loss.
        batch: B structures, N atoms.
        energy, target: [B].
        forces, target_forces: [N, 3], or None where only energies are trained.

    Raises:
        ConfigError: no such loss.
    """
    if spec.loss not in ("paper", "tf_code"):
        raise ConfigError(f"loss: {spec.loss!r} is neither paper nor tf_code")
    squared = (energy - target).square()
    if forces is None or target_forces is None:
        return squared.mean() if spec.loss == "paper" else squared.sum() / 2
    difference = (forces - target_forces).square().sum(1)
    if spec.loss == "tf_code":
        return (spec.rho * squared.sum() + difference.sum()) / 2
    per_atom = difference / batch.n_atoms.to(difference.dtype)[batch.structure]
    return (spec.rho * squared.sum() + per_atom.sum()) / len(target)


@dataclass
class Statistics:
    """Mean and spread of a target, its atom references removed.

    Attributes:
        mean: per atom where the target is a sum over atoms, per structure otherwise.
        deviation: standard deviation of the same; 1 where there is none.
        atomrefs: the single-atom values that were removed, [100] float64, unit of the target.
    """

    mean: float
    deviation: float
    atomrefs: Tensor


def _deviation(values: Tensor, count: int) -> float:
    deviation = float(values.std(correction=0)) if count > 1 else 0.0
    return deviation if deviation > 1e-12 else 1.0


def statistics(data: Structures, target: str, readout: str, atomrefs=None) -> Statistics:
    """Mean and spread of a property of structures.

    Args:
        data: the training structures with the property.
        target: its name.
        readout: ``sum`` for a property that is a sum over atoms: then the statistics are per atom,
            as in the authors' program, and atom references are removed.
        atomrefs: single-atom values by atomic number [100], or None.
    """
    values = data.properties[target]
    references = torch.zeros(MAX_Z, dtype=torch.float64, device=values.device)
    if readout == "sum":
        if atomrefs is not None:
            references = torch.as_tensor(atomrefs, dtype=torch.float64, device=values.device)
        numbers = torch.arange(len(data), device=values.device)
        structure = torch.repeat_interleave(numbers, data.counts)
        atoms = references[data.atomic_numbers.long()]
        total = torch.zeros_like(values).index_add(0, structure, atoms)
        values = (values - total) / data.counts.to(torch.float64)
    return Statistics(float(values.mean()), _deviation(values, len(values)), references)


def normalise(model, data: Structures, spec: RunSpec, atomrefs=None) -> None:
    """Set a model's scale and offsets from the training structures.

    The offset is the mean of the target without atom references, the scale its standard deviation;
    with ``output_scale: forces`` the standard deviation of the force components (times 1 Å). A
    dipole layer has neither.

    Args:
        model: see schnet.models.contract.
        data: the training structures with their properties.
        spec: target, forces, atomrefs and output_scale.
        atomrefs: the data set's single-atom values by atomic number [100], or None.
    """
    readout = model.hyperparameters.readout
    if spec.output_scale not in ("energy", "forces"):
        raise ConfigError(f"output_scale: {spec.output_scale!r} is neither energy nor forces")
    if readout == "dipole":
        return model.set_offsets(scale=1.0, mean=0.0)
    usual = statistics(data, spec.target, readout, atomrefs if spec.atomrefs else None)
    scale = usual.deviation
    if spec.output_scale == "forces" and spec.forces:
        scale = _deviation(data.properties[spec.forces], len(data))
    return model.set_offsets(scale=scale, mean=usual.mean, atomrefs=usual.atomrefs)


@dataclass
class Examples:
    """Structures and what a network has to say of them.

    Attributes:
        structures: M structures with N atoms.
        target: the property without the model's offset, [M] float32.
        forces: [N, 3] float32, or None where only energies are trained.
    """

    structures: Structures
    target: Tensor
    forces: Tensor | None

    def __len__(self) -> int:
        return len(self.structures)


def make_examples(model, data: Structures, spec: RunSpec) -> Examples:
    """Examples of structures that hold the target, and the forces where they are trained.

    The offset is subtracted in float64: what is left is small enough for float32.
    """
    values = data.properties[spec.target]
    parts = [
        values[part] - model.offset(data.batch(part))
        for part in torch.arange(len(data)).split(OFFSET_BATCH)
    ]
    forces = data.properties[spec.forces].float() if spec.forces else None
    return Examples(data, torch.cat(parts).float(), forces)


class Objective:
    """The loss of a run at the present parameters: its gradient on batches, and errors."""

    def __init__(self, spec: RunSpec, flat: FlatParameters, engine):
        """Args: settings; the parameters, which take the gradient; the engine that predicts."""
        self.spec, self.flat, self.engine = spec, flat, engine

    def gradient(self, examples: Examples, indices: Tensor, room: Room | None = None) -> Tensor:
        """Write the gradient of the loss of some examples to ``flat.tensor.grad``.

        Args:
            examples: all training examples.
            indices: which of them, [B], in the memory of the CPU.
            room: fill the batch up to this size, see Structures.batch.

        Returns:
            The loss, a scalar that waits for nothing.
        """
        structures = examples.structures
        batch = structures.batch(indices, room)
        target = examples.target[structures.on_device(indices)]
        target_forces = None
        if examples.forces is not None:
            target_forces = examples.forces[batch.rows]
        self.flat.tensor.grad.zero_()
        energy, forces = self.engine(batch, self.spec.forces is not None)
        if room:  # the last structure only fills up, and feels no force
            energy = energy[: len(target)]
            if target_forces is not None:
                filling = batch.structure == len(target)
                target_forces = target_forces.masked_fill(filling[:, None], 0)
        loss = loss_function(self.spec, batch, energy, forces, target, target_forces)
        loss.backward()
        return loss.detach()

    def errors(self, examples: Examples) -> dict[str, float]:
        """Errors of the present parameters on examples.

        Returns:
            loss; energy and forces: mean absolute errors, nan where there are no forces; bias: mean
            of predicted minus true energy.
        """
        spec = self.spec
        self.engine.refresh()
        sums = dict.fromkeys(("loss", "energy", "forces", "bias"), 0.0)
        components = 0
        size = self.engine.model.evaluation_batch
        for part in torch.arange(len(examples)).split(size):
            batch = examples.structures.batch(part)
            target = examples.target[part]
            target_forces = None
            if examples.forces is not None:
                target_forces = examples.forces[batch.rows]
            energy, forces = self.engine.evaluate(batch, spec.forces is not None)
            loss = loss_function(spec, batch, energy.float(), forces, target, target_forces)
            # one loss is a mean over the structures, the other a sum
            sums["loss"] += float(loss) * (1 if spec.loss == "tf_code" else len(part))
            error = energy.double() - target.double()
            sums["energy"] += float(error.abs().sum())
            sums["bias"] += float(error.sum())
            if target_forces is not None:
                sums["forces"] += float((forces - target_forces).double().abs().sum())
                components += target_forces.numel()
        n = len(examples)
        return {
            "loss": sums["loss"] / n,
            "energy": sums["energy"] / n,
            "forces": sums["forces"] / components if components else math.nan,
            "bias": sums["bias"] / n,
        }
