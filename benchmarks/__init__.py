"""The engine beside SchNetPack and PyTorch Geometric: same weights, same pairs, same inputs, one process."""
