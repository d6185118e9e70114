"""What the rows of all models say together, as data and as tables of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Row = Mapping[str, Any]
MOST_USED = 60
BLIND = 1e-6  # outputs that change less under other weights could not show a false claim


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """Counts per family, operations and failures.

    Args:
        rows: as :func:`benchmarks.coverage.measure.rows` makes them.

    Returns:
        ``families``: a table by family; ``operations``: of the functional programs, the most used
        first; ``false``: models with a claim that does not hold; ``failures``: counts by stage and
        type of error.
    """
    listed = list(rows)
    families = dict.fromkeys(row["family"] for row in listed)
    return {
        "families": {
            family: _family([row for row in listed if row["family"] == family])
            for family in families
        },
        "operations": operations(listed),
        "false": {
            f"{row['family']}/{row['name']}": row["false"] or {"whole group": row["error"]}
            for row in listed
            if _false(row)
        },
        "failures": dict(
            Counter(
                f"{row['stage']}: {row['error_type']}" for row in listed if row.get("error_type")
            ).most_common()
        ),
    }


def compare(rows: Iterable[Row], earlier: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """What has changed since an earlier run, by family, over models that both have traced.

    Args:
        rows: of this run.
        earlier: of the other.

    Returns:
        By family: how many models, the median and the largest ratio of times to trace and the model
        it belongs to, mean shares of parameters next to a movable axis then and now, and models
        that were traced then and are not now.
    """
    known = {(row["family"], row["name"]): row for row in rows}
    traced = [row for row in earlier if "seconds.trace" in row]
    return {
        family: _compared([row for row in traced if row["family"] == family], known)
        for family in dict.fromkeys(row["family"] for row in traced)
    }


def _compared(earlier: Sequence[Row], known: Mapping[tuple[str, str], Row]) -> dict[str, Any]:
    pairs = [(row, known.get((row["family"], row["name"]))) for row in earlier]
    both = [(old, new) for old, new in pairs if new is not None and "seconds.trace" in new]
    ratios = {new["name"]: new["seconds.trace"] / old["seconds.trace"] for old, new in both}
    slowest = max(ratios, key=lambda name: ratios[name], default=None)
    return {
        "models": len(both),
        "median_ratio": _median(list(ratios.values())),
        "largest_ratio": None if slowest is None else ratios[slowest],
        "slowest": slowest,
        "share_then": _mean([share for old, _ in both for share in _share(old)]),
        "share_now": _mean([share for _, new in both for share in _share(new)]),
        "lost": [
            old["name"] for old, new in pairs if new is not None and "seconds.trace" not in new
        ],
    }


def _share(row: Row) -> list[float]:
    return [row["beside_movable"] / row["parameters"]] if row["parameters"] else []


def _false(row: Row) -> bool:
    return row.get("sound") is False


def _family(rows: Sequence[Row]) -> dict[str, Any]:
    traced = [row for row in rows if "seconds.trace" in row]
    shares = [share for row in traced for share in _share(row)]
    plain = [row["seconds.trace"] / row["seconds.export"] for row in traced]
    tried = [row for row in traced if "seconds.experiment" in row]
    return {
        "models": len(rows),
        "built": sum(bool(row["built"]) for row in rows),
        "exported": sum("seconds.export" in row for row in rows),
        "traced": len(traced),
        "compared": sum("sound" in row for row in rows),
        "blind": sum(row.get("sensitivity", 1.0) < BLIND for row in rows),
        "false": sum(map(_false, rows)),
        "round_trips": sum(bool(row.get("round_trip")) for row in rows),
        "undocumented_errors": sum(map(_undocumented, rows)),
        "share_movable": _mean(shares),
        "models_with_unknown": sum(bool(row["unknown"]) for row in traced),
        "unknown_operations": len({name for row in traced for name in row["unknown"]}),
        "median_seconds": {
            "export": _median([row["seconds.export"] for row in traced]),
            "trace": _median([row["seconds.trace"] for row in traced]),
            "experiment": _median([row["seconds.experiment"] for row in tried]),
        },
        "median_ratio": {
            "trace to export": _median(plain),
            "experiment to trace": _median(
                [row["seconds.experiment"] / row["seconds.trace"] for row in tried]
            ),
        },
    }


def _undocumented(row: Row) -> bool:
    """Whether the library, and not the model or its exporter, failed without a TraceError."""
    later = row["stage"] not in ("build", "export", "functional")
    return bool(row.get("error_type")) and later and not row["trace_error"]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def operations(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Operations of the functional programs, those that most models use first.

    An operation has no rule where a spec says so.
    """
    models: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for row in rows:
        found = row.get("functional") or row.get("operations") or {}
        models.update(found.keys())
        uses.update(found)
        unknown.update(set(map(_functional, row.get("unknown", {}))))
    order = sorted({*models, *unknown}, key=lambda name: (-models[name], -uses[name], name))
    return [
        {"name": name, "models": models[name], "uses": uses[name], "no_rule_in": unknown[name]}
        for name in order
    ]


def _functional(name: str) -> str:
    """The operation that writes where its namesake with an underscore at the end does in place."""
    short = name.rpartition("::")[2]
    return name if short.startswith("_") else name.rstrip("_")


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The summary as tables.

    Args:
        summary: of :func:`summarise`; under ``since``, what :func:`compare` gives, if anything.
    """
    parts = [_family_table(summary["families"])]
    if "since" in summary:
        parts.append(_comparison_table(summary["since"]))
    parts.append(_operation_table(summary["operations"]))
    if summary["false"]:
        parts.append(_false_table(summary["false"]))
    if summary["failures"]:
        rows = [(name, str(count)) for name, count in summary["failures"].items()]
        parts.append(_table(("failure", "models"), rows))
    return "\n\n".join(parts)


def _family_table(families: Mapping[str, Any]) -> str:
    head = (
        "family", "models", "built", "exported", "traced", "compared", "false claims", "round trip",
        "undocumented errors", "mean share movable", "models with unknown operations",
        "unknown operations", "export s", "trace s", "trace / export", "with experiment / without",
    )  # fmt: skip
    rows = [
        (
            family,
            *(str(found[key]) for key in ("models", "built", "exported", "traced", "compared")),
            str(found["false"]),
            str(found["round_trips"]),
            str(found["undocumented_errors"]),
            _shown(found["share_movable"], ".1%"),
            str(found["models_with_unknown"]),
            str(found["unknown_operations"]),
            _shown(found["median_seconds"]["export"], ".2f"),
            _shown(found["median_seconds"]["trace"], ".2f"),
            _shown(found["median_ratio"]["trace to export"], ".2f"),
            _shown(found["median_ratio"]["experiment to trace"], ".2f"),
        )
        for family, found in families.items()
    ]
    return _table(head, rows)


def _comparison_table(families: Mapping[str, Any]) -> str:
    head = (
        "family", "models in both", "median time to trace / earlier", "largest", "of",
        "share movable, earlier", "now", "no longer traced",
    )  # fmt: skip
    rows = [
        (
            family,
            str(found["models"]),
            _shown(found["median_ratio"], ".2f"),
            _shown(found["largest_ratio"], ".2f"),
            str(found["slowest"]),
            _shown(found["share_then"], ".1%"),
            _shown(found["share_now"], ".1%"),
            ", ".join(found["lost"]) or "none",
        )
        for family, found in families.items()
    ]
    return _table(head, rows)


def _operation_table(listed: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"`{each['name']}`", str(each["models"]), str(each["uses"]), str(each["no_rule_in"] or ""))
        for each in listed[:MOST_USED]
    ]
    rest = [each for each in listed[MOST_USED:] if each["no_rule_in"]]
    table = _table(("operation", "models", "uses", "models without a rule for it"), rows)
    names = ", ".join(f"`{each['name']}` ({each['no_rule_in']})" for each in rest)
    return table + (f"\n\nWithout a rule, and used less (models): {names}" if names else "")


def _false_table(false: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        (name, str(len(claims)), max(claims, key=lambda each: claims[each]), f"{worst:.0e}")
        for name, claims in false.items()
        for worst in [max(claims.values())]
    ]
    return _table(("model", "false claims", "worst", "relative change"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
