"""The networks that populations are made of."""
