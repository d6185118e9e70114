"""Converts frozen dataclasses to JSON values and back, guided by their annotations."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def encode(value: Any) -> Any:
    """Dataclasses become objects without their default fields, tuples become lists."""
    if is_dataclass(value):
        items = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: encode(item) for f, item in items if item != f.default}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: Any) -> T:
    """Inverse of :func:`encode` for an annotated type.

    Raises:
        TypeError: if the value does not fit the type.
    """
    return _decode(kind, value)


def _decode(kind: Any, value: Any) -> Any:
    if is_dataclass(kind):
        return _decode_object(kind, value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return _decode_tuple(arguments, value)
    if origin in (Union, types.UnionType):
        return None if value is None else _decode(arguments[0], value)
    if origin is Literal:
        if value not in arguments:
            raise TypeError(f"{value!r} is none of {arguments}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} should be {kind.__name__}")
    return value


def _decode_object(kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} should be an object with the fields of {kind.__name__}")
    hints = _hints(kind)
    if extra := value.keys() - {f.name for f in fields(kind)}:
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(extra))}")
    return kind(**{name: _decode(hints[name], item) for name, item in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} should be a list")
    if arguments[-1] is Ellipsis:
        return tuple(_decode(arguments[0], item) for item in value)
    return tuple(_decode(a, item) for a, item in zip(arguments, value, strict=True))
