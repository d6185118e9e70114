"""Small, real programs that show what the library does; run from the root of the repository."""
