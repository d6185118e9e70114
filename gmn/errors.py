"""Errors that several packages raise, importable without loading torch."""

from __future__ import annotations


class UnsupportedArchitecture(ValueError):
    """An architecture breaks an assumption of a method; the message names where, and which."""


class ArgumentError(ValueError, TypeError):
    """An argument cannot be used, by its value or type; the message names it and the way out."""


class ZooError(Exception):
    """A zoo's files are missing, damaged, in use, or belong to another zoo."""


class EngineError(RuntimeError):
    """Jobs cannot be run: Ray is not installed or not there, or a worker process died."""
