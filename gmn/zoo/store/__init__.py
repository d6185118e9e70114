"""The format of a zoo: its files, how they are written, checked and read."""
