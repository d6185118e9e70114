"""The converter on real model families: every claim is held against the module itself.

Small networks with random weights: every model type of `transformers` that builds from a small
configuration, `torchvision`, `timm`, and layers and networks of PyTorch Geometric. For each: the
CPU time to export and to trace (with the closing experiment and without, if tracing has one), the
share of parameters next to a movable axis, operations without a rule, whether its state dict comes
back with the same bits, and whether random elements of the claimed group leave its outputs alone
(float64, fresh inputs); where they do not, which generators are to blame.

Every model has its own process with limits of time and memory. Rows are appended to
OUT/rows.jsonl, so a stopped run goes on; OUT/summary.json and OUT/summary.md hold the tables, with
--against those of an earlier run beside them.

Run: python -m benchmarks.coverage [--families transformers,torchvision,timm,pyg] [--limit N]
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

import converters
from benchmarks.coverage import graphs, hugging, images
from benchmarks.coverage.examples import Model
from benchmarks.coverage.jobs import Key, Limits, Rows, run
from benchmarks.coverage.summary import as_markdown, compare, summarise
from tests.torchvision_operators import declare_operators

FAMILIES: dict[str, tuple[Callable[[], list[str]], Callable[[str], Model]]] = {
    "transformers": (hugging.names, hugging.build),
    "torchvision": (images.torchvision_names, images.torchvision_model),
    "timm": (images.timm_names, images.timm_model),
    "pyg": (graphs.names, graphs.build),
}

LIBRARIES = {
    "transformers": "transformers.modeling_utils",
    "torchvision": "torchvision.models.detection",
    "timm": "timm",
    "pyg": "torch_geometric.nn",
}


def jobs(
    families: list[str], only: list[str], limit: int | None
) -> Iterator[tuple[Key, Callable[[], Model]]]:
    """What is to be measured; ``limit`` models of each family, spread over its list."""
    for family in families:
        names, build = FAMILIES[family]
        chosen = [name for name in names() if not only or name in only]
        step = max(1, len(chosen) // limit) if limit else 1
        for name in chosen[::step][:limit]:
            yield (family, name), partial(build, name)


def warm(families: list[str]) -> None:
    """Imports what every process needs, before there are any."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    declare_operators()
    for family in families:
        importlib.import_module(LIBRARIES[family])
    converters.trace(nn.Linear(1, 1), (torch.zeros(1, 1),))
    program = torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),), strict=False)
    program.run_decompositions({})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", default=",".join(FAMILIES), help="separated by commas")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="models by name")
    parser.add_argument("--limit", type=int, help="models of each family")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--seconds", type=int, default=120, help="CPU time limit of a model")
    parser.add_argument("--gib", type=float, default=6.0, help="memory limit of a model")
    parser.add_argument("--again", action="store_true", help="measure anew what failed before")
    parser.add_argument("--against", type=Path, help="rows.jsonl of an earlier run")
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"))
    options = parser.parse_args()
    families = options.families.split(",")
    if unknown := set(families) - set(FAMILIES):
        parser.error(f"no families are called {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    warm(families)
    kept = Rows(options.out / "rows.jsonl")
    listed = [
        (key, build)
        for key, build in jobs(families, options.only, options.limit)
        if key not in kept.found or (options.again and kept.found[key].get("error_type"))
    ]
    limits = Limits(options.seconds, int(options.gib * 2**30))
    with tqdm(total=len(listed)) as bar:
        for row in run(listed, limits, options.jobs):
            kept.add(row)
            bar.set_postfix_str(f"{row['family']}/{row['name']}")
            bar.update()
    summary = summarise(kept.found.values())
    if options.against is not None:
        earlier = Rows(options.against)
        summary["since"] = compare(kept.found.values(), earlier.found.values())
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1))
    text = as_markdown(summary)
    (options.out / "summary.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
