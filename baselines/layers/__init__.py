"""Equivariant layers, their weight sharing and encodings: what several baselines are made of."""
