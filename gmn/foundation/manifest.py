"""Reads JSON files that describe a folder against a schema: errors name file, field and value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

LARGEST = 64 << 20  # bytes; a zoo of ten million networks has 5 MB

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 48)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_MISSING = "Object missing required field "
_FIELD = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


class ManifestError(ValueError):
    """A file does not hold what its kind of file holds; the message names file, field and value."""


def read(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ManifestError: if it is too large, no JSON, or nested too deeply.
        OSError: if it cannot be read.
    """
    if path.stat().st_size > LARGEST:
        raise ManifestError(f"{path} has {path.stat().st_size:,} bytes, more than {LARGEST:,}")
    return parse(path.read_bytes(), path)


def parse(text: str | bytes, path: Path) -> Any:
    """The value of a JSON text that stands in a file.

    Raises:
        ManifestError: if it is no JSON, or nested too deeply.
    """
    try:
        content = json.loads(text)
        if "\\ud" in (text if isinstance(text, str) else text.decode("utf-8", "replace")).lower():
            json.dumps(content, ensure_ascii=False).encode()  # half of a pair is no text
        return content
    except RecursionError:
        raise ManifestError(f"{path} is damaged: nested too deeply") from None
    except ValueError as error:
        raise ManifestError(f"{path} is damaged: no JSON: {error}") from error


def check(content: Any, schema: type[T], path: Path) -> T:
    """JSON values in the form of a schema: a ``TypedDict`` or dataclass of annotated types.

    Fields that the schema does not know are left out.

    Raises:
        ManifestError: if a field is missing, of another type, or out of range.
    """
    try:
        return msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{path} is damaged: {_told(str(error), content)}") from error
    except RecursionError:
        raise ManifestError(f"{path} is damaged: nested too deeply") from None


def _told(error: str, content: Any) -> str:
    """The field, its value, and what it should be, of an error of msgspec."""
    reason, _, place = error.replace("`", "").partition(" - at $")
    if reason.startswith(_MISSING):
        return f"{place}.{reason.removeprefix(_MISSING)} is missing".lstrip(".")
    field = place.lstrip(".") or "it"
    return f"{field} is {_shown(content, place)}; {reason[:1].lower()}{reason[1:]}"


def _shown(content: Any, place: str) -> str:
    """The value at a place such as ``.shards[0].bytes``, in short."""
    for name, index in _FIELD.findall(place):
        if isinstance(content, dict) and name in content:
            content = content[name]
        elif isinstance(content, list) and index:
            content = content[int(index)]
        else:  # [...] stands for any entry of a mapping
            return "of another kind"
    if isinstance(content, dict | list):
        return "an object" if isinstance(content, dict) else "a list"
    return repr(content)[:80]
