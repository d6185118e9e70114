"""State dicts from files, other libraries and chains of layers."""
