"""Message passing on blocks: the base of layers of your own."""
