"""The symmetry group of a spec: sample an element and act with it on weights.

An element first exchanges branches, then adds shifts, changes bases, multiplies by scales and
permutes: along every axis, ``new[i] = s[p[i]] * (A @ (old + t))[p[i]]``. Acting on all entries of a
state dict at once leaves the network's function unchanged; that is what
:func:`converters.proof.verify` checks.

Where a shift reaches an entry through a weight that the element shifts, too, it goes through the
mean of the weight before and after: then inverse elements are those of the opposite shifts.
"""

from gmn.symmetry.element import Element
from gmn.symmetry.sampling import KINDS, only, sample

__all__ = ["KINDS", "Element", "only", "sample"]
