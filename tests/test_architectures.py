"""The comparison models beside others' code with the same weights, and beside their formulas."""

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from scipy.special import sph_harm_y, spherical_jn
from torch import nn

from schnet.data.structures import from_atoms
from schnet.models import build, physnet
from schnet.models.directional import SphericalBasis, bessel_roots, directed_edges
from schnet.models.enn_s2s import SetToSet

torch_geometric = pytest.importorskip("torch_geometric", reason="yardstick: torch-geometric")


def batch_of(*structures, cutoff=None):
    data = from_atoms(list(structures), cutoff=cutoff, dtype=torch.float64)
    return data.batch(torch.arange(len(data)))


def rattled(name, seed=0):
    atoms = molecule(name)
    atoms.rattle(0.05, seed=seed)
    return atoms


def randomised(model):
    """In float64, with no parameter at zero."""
    model = model.double().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        inputs = parameter.shape[-1] if parameter.ndim > 1 else 1
        parameter.mul_(0.6).add_(0.2 / inputs**0.5 * noise)
    return model


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters in the order of their declaration."""
    ours, theirs = list(source.parameters()), list(target.parameters())
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for parameter, other in zip(theirs, ours, strict=True):
            parameter.copy_(other)


# ---- DimeNet -------------------------------------------------------------------------------------
def reference_dimenet(model, edges, atomic_numbers):
    """The same weights in PyTorch Geometric's blocks, on the same edges and angles."""
    from torch_geometric.nn.models import dimenet as theirs

    p = model.hyperparameters
    sizes = p.n_spherical, p.n_radial
    angle = torch.arccos(edges.cosine)
    radial = theirs.BesselBasisLayer(p.n_radial, p.reach, p.envelope - 1).double()
    copy_parameters(model.radial_basis, radial)
    rbf = radial(edges.d)
    sbf = theirs.SphericalBasisLayer(*sizes, p.reach, p.envelope - 1)(edges.d, angle, edges.kj)
    embedding = theirs.EmbeddingBlock(p.n_radial, p.n_features, nn.functional.silu).double()
    embedding.emb = nn.Embedding.from_pretrained(model.embedding.elements.weight)
    copy_parameters(model.embedding.radial, embedding.lin_rbf)
    copy_parameters(model.embedding.dense, embedding.lin)
    x = embedding(atomic_numbers.long(), rbf, edges.target, edges.source)
    outputs = [_reference_output(output, p) for output in model.outputs]
    n_atoms = len(atomic_numbers)
    total = outputs[0](x, rbf, edges.target, num_nodes=n_atoms)
    for block, output in zip(model.interactions, outputs[1:], strict=True):
        x = _reference_interaction(block, p)(x, rbf, sbf, edges.kj, edges.ji)
        total = total + output(x, rbf, edges.target, num_nodes=n_atoms)
    return total.squeeze(1)


def _reference_output(block, p):
    from torch_geometric.nn.models import dimenet as theirs

    more = (p.n_output,) if p.plus_plus else ()
    cls = theirs.OutputPPBlock if p.plus_plus else theirs.OutputBlock
    found = cls(p.n_radial, p.n_features, *more, 1, 3, nn.functional.silu).double()
    copy_parameters(block, found)
    return found


def _reference_interaction(block, p):
    from torch_geometric.nn.models import dimenet as theirs

    counts = (p.n_spherical, p.n_radial, 1, 2, nn.functional.silu)
    if p.plus_plus:
        found = theirs.InteractionPPBlock(p.n_features, p.n_triplet, p.n_basis, *counts)
        pairs = ["radial1 lin_rbf1", "radial2 lin_rbf2", "spherical1 lin_sbf1"]
        pairs += ["spherical2 lin_sbf2", "down lin_down", "up lin_up"]
    else:
        found = theirs.InteractionBlock(p.n_features, p.n_bilinear, *counts)
        pairs = ["radial lin_rbf", "spherical lin_sbf"]
    found = found.double()
    for names in pairs:
        ours, other = names.split()
        copy_parameters(getattr(block.triplets, ours), getattr(found, other))
    if not p.plus_plus:
        found.W.data.copy_(block.triplets.weight)
    copy_parameters(block.own, found.lin_ji)
    copy_parameters(block.others, found.lin_kj)
    copy_parameters(block.before, found.layers_before_skip[0])
    copy_parameters(block.dense, found.lin)
    copy_parameters(block.after, found.layers_after_skip)
    return found


@pytest.mark.parametrize("plus_plus", [False, True], ids=["DimeNet", "DimeNet++"])
def test_dimenet_equals_pytorch_geometric(plus_plus):
    sizes = {"n_blocks": 2, "n_features": 16, "n_triplet": 12, "n_output": 20, "r_cut": 2.5}
    sizes |= {"n_spherical": 3, "n_radial": 3}  # PyTorch Geometric derives its basis with sympy
    torch.manual_seed(0)
    model = randomised(build("dimenet", sizes | {"plus_plus": plus_plus}))
    batch = batch_of(rattled("CH3CH2OH"), rattled("C6H6", 1))
    edges = directed_edges(batch, 2.5)
    assert 0 < len(edges.kj) < 21 * 20 * 19
    expected = reference_dimenet(model, edges, batch.atomic_numbers)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(model.atomwise(batch), expected, rtol=1e-9, atol=1e-9)


def test_triplets_of_dimenet_by_hand():
    """Every pair of bonds at an atom twice; the way back is left out, images are not."""
    water = batch_of(molecule("H2O"))
    edges = directed_edges(water, 1.2)  # O-H, but not H-H
    assert len(edges.d) == 4 and len(edges.kj) == 2
    angle = math.degrees(math.acos(edges.cosine[0]))
    assert angle == pytest.approx(molecule("H2O").get_angle(1, 0, 2), abs=1e-6)
    diamond = batch_of(bulk("C", "diamond", a=3.567), cutoff=1.6)
    edges = directed_edges(diamond, 1.6)
    assert len(edges.d) == 2 * 4 and len(edges.kj) == 8 * 3
    assert edges.cosine == pytest.approx(-1 / 3)  # the tetrahedron's angle


def test_basis_of_dimenet_is_that_of_the_paper():
    basis = SphericalBasis(5.0, envelope=6, n_radial=3, n_spherical=4)
    batch = batch_of(rattled("CH3OH"))
    edges = directed_edges(batch, 5.0)
    found = basis(edges).view(-1, 4, 3)
    x = edges.d[edges.kj].numpy() / 5.0
    alpha = np.arccos(edges.cosine.numpy())
    u = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    for degree in range(4):
        for n in range(3):
            root = bessel_roots(4, 3)[degree, n]
            assert spherical_jn(degree, root) == pytest.approx(0, abs=1e-12)
            norm = math.sqrt(2) / abs(spherical_jn(degree + 1, root))
            radial = u / x * norm * spherical_jn(degree, root * x)
            expected = radial * sph_harm_y(degree, 0, alpha, 0.0).real
            assert found[:, degree, n].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["dimenet", "physnet"])
def test_messages_end_smoothly_at_the_cutoff(name):
    """An atom that leaves the reach changes nothing at once."""
    model = randomised(build(name, {"r_cut": 3.0, "n_features": 16}))
    pair = molecule("CO")
    energies = {}
    for d in (2.99, 2.9999, 3.0001, 9.0):
        pair.set_distance(0, 1, d)
        energies[d] = model(batch_of(pair)).item()
    assert energies[3.0001] == pytest.approx(energies[9.0], abs=1e-12)
    assert energies[2.9999] == pytest.approx(energies[9.0], abs=1e-9)
    assert abs(energies[2.99] - energies[9.0]) > abs(energies[2.9999] - energies[9.0])


# ---- PhysNet -------------------------------------------------------------------------------------
def test_radial_functions_of_physnet_are_those_of_the_paper():
    p = physnet.Hyperparameters(n_radial=8, r_cut=6.0)
    r = torch.linspace(0.5, 7.0, 27, dtype=torch.float64)
    found = physnet.RadialBasis(p).double()(r).detach()
    centres = np.linspace(1, math.exp(-6), 8)
    beta = (2 / 8 * (1 - math.exp(-6))) ** -2
    x = r.numpy()[:, None] / 6
    phi = np.where(x < 1, 1 - 6 * x**5 + 15 * x**4 - 10 * x**3, 0)
    expected = phi * np.exp(-beta * (np.exp(-r.numpy()[:, None]) - centres) ** 2)
    assert found.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_module_of_physnet_by_its_formula():
    """One module on a diatomic, written out with plain matrix products."""
    p = {"n_modules": 1, "n_features": 4, "n_radial": 3, "n_interaction": 1, "n_atomic": 1}
    model = randomised(build("physnet", p | {"n_output": 1}))
    batch = batch_of(molecule("CO"))
    module = model.blocks[0]

    def sigma(x):
        return torch.log(0.5 * torch.exp(x) + 0.5)

    def residual(block, x):
        inner = block.dense1.weight @ sigma(x) + block.dense1.bias
        return x + block.dense2.weight @ sigma(inner) + block.dense2.bias

    g = model.radial_basis(batch.distances())[0]
    x = [model.embedding(z) for z in batch.atomic_numbers]
    energy = 0.0
    for own, other, z in ((0, 1, 0), (1, 0, 1)):
        v = sigma(module.own.weight @ sigma(x[own]) + module.own.bias)
        sent = sigma(module.others.weight @ sigma(x[other]) + module.others.bias)
        v = residual(module.interaction[0], v + (module.mask.weight @ g) * sent)
        y = module.gate * x[own] + module.dense.weight @ sigma(v) + module.dense.bias
        y = residual(module.output[0], residual(module.atomic[0], y))
        y = module.last.weight @ sigma(y) + module.last.bias
        number = batch.atomic_numbers[z].long()
        energy = energy + model.scales[number] * y + model.shifts[number]
    assert model(batch).item() == pytest.approx(energy.item(), rel=1e-10)


# ---- enn-s2s -------------------------------------------------------------------------------------
def test_enn_s2s_equals_pytorch_geometric():
    from torch_geometric.nn import NNConv, Set2Set

    model = randomised(build("enn_s2s", {"n_features": 8, "n_edge": 6, "n_readout": 4}))
    batch = batch_of(rattled("CH3CH2OH"), rattled("H2O"))
    i, j = batch.i.long(), batch.j.long()
    edges = torch.stack([torch.cat([j, i]), torch.cat([i, j])])  # from source to target
    d = batch.distances().repeat(2)[:, None]

    def network(x):  # a row of NNConv's matrix is an input, of ours an output
        return model.edge_network(x.squeeze(1)).transpose(1, 2).flatten(1)

    convolution = NNConv(8, 8, network, aggr="add", root_weight=False, bias=False)
    set2set = Set2Set(8, processing_steps=4).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for name in names:
        getattr(set2set.lstm, f"{name}_l0").data.copy_(getattr(model.set_to_set.lstm, name))
    first = h = model.embedding(batch.atomic_numbers)
    for _ in range(3):
        h = model.update(convolution(h, edges, d), h)
    x = model.project(torch.cat([h, first], 1))
    q = set2set(x, batch.structure)
    y = model.output2(torch.log(0.5 * torch.exp(model.output1(q)) + 0.5)).squeeze(1)
    assert y.abs().min() > 1e-6
    torch.testing.assert_close(model(batch), y, rtol=1e-9, atol=1e-12)


def test_the_readout_of_enn_s2s_keeps_large_scores_in_range():
    readout = SetToSet(4, 3).double()
    x = 1e4 * torch.ones(5, 4, dtype=torch.float64)
    batch = batch_of(molecule("CH4"))
    assert readout(x, batch).isfinite().all()
