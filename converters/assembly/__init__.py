"""From what was inferred to a spec: blocks, names, generators, the program as data."""
