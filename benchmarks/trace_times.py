"""How long traces take in this checkout and in another one, in turn in one run.

Both checkouts trace the same networks in a process of their own each: those that the tests build
of a library, or all networks of the tests. Prints, for each, CPU seconds on one thread (medians of
several warm traces) in the other checkout, and in this one without and with the closing experiment.

Run: python -m benchmarks.trace_times OTHER [--library transformers] [--limit N] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
LIBRARIES = ("cases", "transformers", "torchvision", "timm")


class Worker:
    """A process that traces with the converter of one checkout.

    Args:
        checkout: its folder.
        options: passed on to ``converters.trace``.
    """

    def __init__(self, checkout: Path, **options: bool) -> None:
        command = [sys.executable, "-m", "benchmarks.trace_times", str(checkout), "--serve"]
        self._options = options
        self._process = subprocess.Popen(
            command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, library: str, name: str) -> float | str:
        """CPU time of one trace, or what went wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([library, name, self._options]) + "\n")
        self._process.stdin.flush()
        answer: float | str = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--library", choices=LIBRARIES, default="transformers")
    parser.add_argument("--limit", type=int, help="networks at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.other)
        return
    workers = {
        "other": Worker(options.other),
        "without": Worker(HERE, experiment=False),
        "with": Worker(HERE, experiment=True),
    }
    print("| network | other s | without experiment s | with s | without / other | with / other |")
    print("|---|---|---|---|---|---|")
    rows = list(measured(workers, options.library, options.limit, options.rounds))
    for worker in workers.values():
        worker.close()
    print(f"\n{_summary(rows)}")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def measured(
    workers: dict[str, Worker], library: str, limit: int | None, rounds: int
) -> Iterator[dict[str, Any]]:
    """Prints and gives a row for each network that all workers trace."""
    for name in list(_catalogue(library)[0])[:limit]:
        tries: dict[str, list[float | str]] = {key: [] for key in workers}
        for _ in range(rounds + 1):
            for key, worker in workers.items():
                tries[key].append(worker.seconds(library, name))
        failed = {key: one for key, found in tries.items() for one in found if isinstance(one, str)}
        if failed:
            print(f"| {name} | {failed} |", flush=True)
            continue
        row = {key: statistics.median(map(float, found[1:])) for key, found in tries.items()}
        print(
            f"| {name} | {row['other']:.2f} | {row['without']:.2f} | {row['with']:.2f} | "
            f"{row['without'] / row['other']:.2f} | {row['with'] / row['other']:.2f} |",
            flush=True,
        )
        yield {"name": name, **row}


def _summary(rows: list[dict[str, Any]]) -> str:
    lines = []
    for key in ("without", "with"):
        ratios = [row[key] / row["other"] for row in rows]
        total = sum(row[key] for row in rows) / sum(row["other"] for row in rows)
        lines.append(
            f"{len(rows)} networks, {key} experiment: together {total:.2f} times the other, "
            f"median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}"
        )
    return "\n".join(lines)


# --- in the process of a checkout ---------------------------------------------------------------


def serve(checkout: Path) -> None:
    """Answers every line of standard input, a network and options, with seconds."""
    sys.path.insert(0, str(checkout))
    import torch

    import converters  # of that checkout; everything else is this one's

    sys.path.pop(0)
    assert Path(converters.__file__).is_relative_to(checkout.resolve())
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    built: tuple[str, Any] = ("", None)
    for text in sys.stdin:
        library, name, options = json.loads(text)
        if built[0] != name:
            built = name, _catalogue(library)[1](name)
        print(json.dumps(_seconds(converters.trace, built[1], options)), flush=True)


def _seconds(trace: Callable[..., object], built: Any, options: dict[str, bool]) -> float | str:
    start = time.process_time()
    try:
        trace(*built, **options)
    except Exception as error:  # a network that one of the checkouts cannot trace
        return f"{type(error).__name__}: {str(error)[:60]}"
    return time.process_time() - start


def _catalogue(library: str) -> tuple[list[str], Callable[[str], Any]]:
    from tests.cases import CASES

    if library == "cases":
        cases = {case.name: case for case in CASES}
        return [*cases], lambda name: (cases[name].model(), cases[name].example())
    from benchmarks.families import CATALOGUES
    from tests.torchvision_operators import declare_operators

    declare_operators()
    names, build = CATALOGUES[library]
    return [*names], build


if __name__ == "__main__":
    main()
