"""The error that the command line prints without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can correct; shown without a traceback."""
