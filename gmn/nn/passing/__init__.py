"""Message passing on the blocks of parameter graphs, for layers of your own."""
