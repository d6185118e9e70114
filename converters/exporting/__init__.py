"""From a module to its functional program: one graph of operations without side effects."""
