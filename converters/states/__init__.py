"""Reads state dicts from files, other libraries and chains of layers without a model."""
