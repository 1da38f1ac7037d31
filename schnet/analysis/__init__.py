"""What a trained model has learned: local chemical potentials and filters (Figs. 2, 5 and 6)."""
