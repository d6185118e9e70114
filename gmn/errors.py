"""Errors that several packages raise, importable without loading torch."""

from __future__ import annotations


class DataError(Exception):
    """Files, networks or results cannot be used; ``gmn`` then ends with exit code 1.

    Other errors are of usage: arguments that contradict one another, or name nothing.
    """


class NotFiniteError(DataError, FloatingPointError):
    """What should be numbers is NaN or infinite; the message names what, and the way out."""


class UnsupportedArchitecture(DataError, ValueError):
    """An architecture breaks an assumption of a method; the message names where, and which."""


class ArgumentError(ValueError, TypeError):
    """An argument cannot be used, by its value or type; the message names it and the way out."""


class ZooError(DataError):
    """A zoo's files are missing, damaged, in use, or belong to another zoo."""


class OutputError(DataError, ValueError):
    """A folder or file cannot be written: it is another's, in use, or there is no room."""


class EngineError(DataError, RuntimeError):
    """Jobs cannot be run: Ray is not installed or not there, or a worker process died."""


class ConsentError(ValueError):
    """A file names code that is not installed and that the user did not say to trust."""
