"""Exports a module as a functional forward graph: operations without side effects."""
