"""Data cards: counts, labels, sizes and build time of a zoo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc

from gmn.foundation.arguments import require_type
from gmn.zoo.population import Zoo
from gmn.zoo.store import provenance
from gmn.zoo.store.index import histogram, numeric_columns

BINS = 10
FEW = 20  # different values that are counted one by one


def describe(zoo: Zoo) -> dict[str, Any]:
    """The data card of a zoo and statistics of its index and files, as JSON values.

    Args:
        zoo: the population.

    Returns:
        Name, seed, configuration, card; counts by architecture and split; every numeric column
        with its range and histogram; bytes; when it was built and how long that took.
    """
    require_type("zoo", zoo, Zoo, "an open zoo: gmn.zoo.open(folder)")
    manifest, size = zoo.manifest, zoo.num_bytes
    return {
        "name": manifest["name"],
        "seed": manifest["seed"],
        "networks": len(zoo),
        "architectures": {
            name: {"networks": count, "parameters": zoo.spec(name).num_parameters}
            for name, count in histogram(zoo.index, "architecture").items()
        },
        "splits": histogram(zoo.index, "split"),
        "labels": {name: _summary(zoo, name) for name in numeric_columns(zoo.index)},
        "extras": zoo.extras,
        "shards": len(manifest["shards"]),
        "bytes": {
            "shards": size,
            "index": manifest["index"]["bytes"],
            "per_network": round((size + manifest["index"]["bytes"]) / len(zoo)),
        },
        "duration": provenance.duration(zoo.folder),
        "configuration": manifest["configuration"],
        "card": manifest["card"],
    }


def _summary(zoo: Zoo, column: str) -> dict[str, Any]:
    """Range and histogram of a column; how many networks have no number in it."""
    values = pc.cast(zoo.index[column], "float64", safe=False).to_numpy()
    finite = values[np.isfinite(values)]
    facts: dict[str, Any] = {"without": len(values) - len(finite)}
    if not len(finite):
        return facts
    low, high = float(finite.min()), float(finite.max())
    facts |= {"min": low, "median": float(np.median(finite)), "max": high}
    distinct, counts = np.unique(finite, return_counts=True)
    if len(distinct) <= FEW:
        named = zip(distinct.tolist(), counts.tolist(), strict=True)
        return {**facts, "counts": {f"{value:g}": count for value, count in named}}
    if math.isfinite(high - low):
        facts["histogram"] = np.histogram(finite, BINS)[0].tolist()
    return facts


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts of :func:`describe` as text, one topic a line."""
    yield f"{facts['name']}: {facts['networks']} networks, seed {facts['seed']}"
    for name, about in facts["architectures"].items():
        yield f"  {name}: {about['networks']} networks of {about['parameters']:,} parameters"
    for topic in ("splits", "extras"):
        if facts[topic]:
            yield f"  {topic}: {facts[topic]}"
    for name, about in facts["labels"].items():
        yield f"  {name}: {_label(about)}"
    size = facts["bytes"]
    yield (
        f"  files: {facts['shards']} shards of {size['shards']:,} bytes, index of "
        f"{size['index']:,}; {size['per_network']:,} bytes per network"
    )
    for topic in ("duration", "configuration", "card"):
        for name, value in facts[topic].items():
            yield f"  {topic}.{name}: {value}"


def _label(about: dict[str, Any]) -> str:
    if "min" not in about:
        return "no numbers"
    text = f"{about['min']:g} to {about['max']:g}, median {about['median']:g}"
    if "counts" in about:
        text += f"; {about['counts']}"
    elif "histogram" in about:
        text += f"; {BINS} bins: {about['histogram']}"
    return text + (f"; {about['without']} networks without" if about["without"] else "")
