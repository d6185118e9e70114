"""The laws of this library, as assertions and as tests that work on anybody's models."""

from gmn.testing.assertions import (
    assert_covers,
    assert_equivariant,
    assert_invariant,
    assert_same_function,
    relative_error,
)
from gmn.testing.laws import MetanetworkLaws

__all__ = [
    "MetanetworkLaws",
    "assert_covers",
    "assert_equivariant",
    "assert_invariant",
    "assert_same_function",
    "relative_error",
]
