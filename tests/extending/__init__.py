"""What a user writes to extend the library: one file each."""
