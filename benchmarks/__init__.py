"""The engine beside SchNetPack and PyTorch Geometric: same weights, pairs and inputs."""
