"""The functions that rules of your own are written with; see ``docs/writing-a-rule.md``.

A rule has two halves. The first says what the dimensions of the result range over, and what those
of the operands have in common. The second says how the result moves when the operands do, and how
they must not: in the labels of a :class:`Frame`, from the few forms that nearly all have.
"""

from __future__ import annotations

from .inference.actions import NOTHING, Action, Actions
from .inference.axes import Axis, atoms, cut, fix, fixed, regroup, size_of, unify
from .inference.frames import Frame, Member
from .inference.primitives import (
    added,
    broadcast,
    contract,
    equate,
    extremum,
    forgetting,
    homogeneous,
    outside,
    pinned,
    product,
    reshaped,
    summed,
    total,
)
from .inference.tracing import Rule, Tracing, Value, arguments, operands_of, path_of, shape_of
from .rules.norm import affine
from .rules.pointwise import (
    broadcast_axes,
    even,
    moved,
    nothing,
    odd,
    pinned_all,
    plain,
    positive,
    same_axes,
    unary,
)
from .rules.weights import biased, contracted

place_of = path_of  # its name in rules written before

__all__ = [
    "NOTHING",
    "Action",
    "Actions",
    "Axis",
    "Frame",
    "Member",
    "Rule",
    "Tracing",
    "Value",
    "added",
    "affine",
    "arguments",
    "atoms",
    "biased",
    "broadcast",
    "broadcast_axes",
    "contract",
    "contracted",
    "cut",
    "equate",
    "even",
    "extremum",
    "fix",
    "fixed",
    "forgetting",
    "homogeneous",
    "moved",
    "nothing",
    "odd",
    "operands_of",
    "outside",
    "path_of",
    "pinned",
    "pinned_all",
    "place_of",
    "plain",
    "positive",
    "product",
    "regroup",
    "reshaped",
    "same_axes",
    "shape_of",
    "size_of",
    "summed",
    "total",
    "unary",
    "unify",
]
