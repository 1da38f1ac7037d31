"""Structures, models and processes that several tests of simulations want."""

import signal
import subprocess
import sys
import time

import numpy as np
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from conftest import ROOT, random_model


def crystal(seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def crystal_model(seed=0):
    return random_model(seed, cutoff=4.0, r_max=4.0).double().eval()


class Spring(Calculator):
    """Two atoms and a spring: E = k (d - d0)^2 / 2."""

    implemented_properties = ["energy", "forces"]
    K, D0 = 30.0, 1.1

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        r = self.atoms.positions[1] - self.atoms.positions[0]
        d = np.linalg.norm(r)
        f = self.K * (d - self.D0) * r / d
        energy = 0.5 * self.K * (d - self.D0) ** 2
        self.results = {"energy": energy, "forces": np.array([f, -f])}


def kill_after_checkpoint(command, checkpoint):
    """Start a command, kill -9 it a moment after its first checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "schnet", *map(str, command)], cwd=ROOT)
    try:
        for _ in range(1200):
            if checkpoint.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
