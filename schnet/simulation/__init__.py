"""Trained models at work: relaxation, normal modes, dynamics, path integrals."""
