"""What metanetworks of all packages raise when they cannot read a network."""

from __future__ import annotations


class UnsupportedArchitecture(ValueError):
    """An architecture breaks an assumption of a method; the message names where, and which."""
