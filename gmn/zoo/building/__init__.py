"""Populations that can be built by name."""
