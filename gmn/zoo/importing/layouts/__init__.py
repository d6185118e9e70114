"""One file per published layout, and what several of them share."""
