"""From upstream files to tensors: fetch, convert to one HDF5 layout, split, load."""
