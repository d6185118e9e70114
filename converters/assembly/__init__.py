"""Builds a GraphSpec from inferred axes and equations: blocks, names, symmetries, program."""
