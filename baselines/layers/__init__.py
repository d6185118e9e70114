"""Equivariant layers, weight sharing and encodings that several baselines use."""
