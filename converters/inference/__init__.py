"""Infers, for every value of a forward graph, its axes and how it transforms with the weights."""
