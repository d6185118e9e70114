"""The error that the command line prints without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; shown without a traceback."""
