"""The build log: times, versions and machine, which do not enter a zoo's identity.

``build.jsonl`` holds one line an event. It is not part of a zoo's identity: two builds of one
zoo differ in it alone, and a zoo without it is complete.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from gmn.foundation import manifest
from gmn.foundation.files import OutputFolder
from gmn.foundation.manifest import ManifestError

JOURNAL = "build.jsonl"
LIBRARIES = ("graph-metanetworks", "torch", "numpy", "safetensors", "pyarrow")


class Event(TypedDict):
    """A line of the journal."""

    time: str
    event: str
    shard: NotRequired[int]
    seconds: NotRequired[float]
    libraries: NotRequired[dict[str, str]]


def note(output: OutputFolder, event: str, details: dict[str, Any]) -> None:
    """Appends an event to the build log of a zoo.

    Args:
        output: folder of the zoo.
        event: ``start``, ``shard``, ``finish`` or ``append``.
        details: further JSON values of the event.
    """
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps({"time": moment, "event": event, **details})
    output.append(JOURNAL, f"\n{line}")  # a break first: the last line of a killed run may be torn


def libraries() -> dict[str, str]:
    """Versions of the libraries that decide the numbers in a zoo."""
    return {name: version(name) for name in LIBRARIES}


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """All events of a zoo's journal, in order; lines that a killed run tore are left out."""
    path = folder / JOURNAL
    events = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            event = manifest.parse(line, path)
            manifest.check(event, Event, path)
        except ManifestError:
            continue
        events.append(event)
    return events


def duration(folder: Path) -> dict[str, Any]:
    """When a zoo was built and how much computing that took.

    Args:
        folder: folder of the zoo.

    Returns:
        JSON values; empty if the zoo has no journal.
    """
    events = read_journal(folder)
    if not events:
        return {}
    # A shard that was made twice counts once: as it is now.
    built = [event for event in events if event["event"] == "shard" and "seconds" in event]
    shards = {event["shard"]: event for event in built if "shard" in event}
    facts: dict[str, Any] = {"started": events[0]["time"]}
    if finished := [event for event in events if event["event"] == "finish"]:
        facts |= {"finished": finished[-1]["time"], "libraries": finished[-1].get("libraries")}
    if shards:
        seconds = sum(event["seconds"] for event in shards.values())
        facts |= {"processor_seconds": round(seconds, 1), "of_shards": len(shards)}
    return facts
