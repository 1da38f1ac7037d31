"""SchNet (Schütt et al., J. Chem. Phys. 148, 241722, 2018): model, engine and replication."""

__version__ = "0.1.0"
