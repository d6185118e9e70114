"""Errors of the command line itself."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; shown without a traceback."""
