"""Folders of every kind that the library writes, changed at random as a hostile hand would.

Around each lies a tree of files that are not to be touched, and within each a module that leaves a
mark when it runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import converters
import gmn
from gmn import zoo
from gmn.comparison.finished_runs import FILE, FinishedRuns, comparison_folder
from gmn.errors import ConsentError, NotFiniteError, OutputError, ZooError
from gmn.foundation.files import LOCK
from gmn.graph import StateDictError
from gmn.graph.files import GraphFileError
from gmn.spec.program import ProgramError
from gmn.train import Recipe, TrainedFileError, fit, load, predict_files
from gmn.train.journal import Journal, run_folder
from gmn.train.run import Run
from gmn.zoo.store.provenance import duration
from tests.gmn.lines import lines

EVIL = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nmake = T = print\n"
REFUSALS = (
    ZooError, TrainedFileError, ConsentError, GraphFileError, StateDictError, OutputError,
    converters.CheckpointError, NotFiniteError, ProgramError,
)  # fmt: skip
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 10**9, 2**31, 2**40, 2**63, 2**70, -(2**70), 1.5, 1e308,
    float("nan"),
    "", ".", "..", "../victim", "../../victim", "/etc/passwd", "a/b", "evil", "evil:make", "evil:T",
    "os:system", "builtins:exec", "gmn", "flat-mlp", "\0", "\ud800", "[bold]", ":x:", "x" * 100_000,
    "0" * 64, [], {}, [None], [[]], {"": {}}, {"file": "../victim"}, [1, "a", None], ["../victim"],
    "[1e999]", "[" * 50_000, "rand.default", "zeros.default",
]  # fmt: skip
NUMBERS = (-1, 0, 2, 7, 10**5, 10**9, 2**31, 2**40, 2**62)


# --- folders ------------------------------------------------------------------------------------


def make(folder: Path) -> None:
    """One folder of every kind, each in a place of its own."""
    lines(folder / "zoo" / "it")
    lines(folder / "zoo" / "other", first=100)
    graph = converters.to_graph(_network(), (torch.zeros(1, 1, 4, 4),))
    gmn.save(graph, folder / "graph" / "it")
    fit(_inrs(folder / "population"), "flat-mlp", folder / "model" / "it", _RECIPE, progress=False)
    save_file(zoo.open(folder / "population").state(0), folder / "model" / "weights.safetensors")
    with run_folder(folder / "run" / "it", []) as output:
        run = _run()
        run.end_epoch(0.5, {"epoch": 0, "loss": 1.0})
        Journal(output, lambda: IDENTITY).write(run)
    with comparison_folder(folder / "runs" / "it") as output:
        output.write(FILE, _RUNS.encode())
    index = folder / "checkpoint" / "it"
    index.mkdir(parents=True)
    save_file({"w": torch.ones(3)}, index / "a.safetensors")
    save_file({"b": torch.ones(3)}, index / "b.safetensors")
    (index / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "a.safetensors", "b": "b.safetensors"}})
    )
    for kind in USES:
        (folder / kind / "victim").write_text("mine")
        (folder / kind / "it" / "evil.py").write_text(EVIL)


def _network() -> nn.Module:
    """With axes, buffers, taps, scales and a program."""
    layers = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    return nn.Sequential(*layers).eval()


_RECIPE = Recipe(epochs=1)
IDENTITY = {"model": "Linear", "seed": 0, "recipe": {"epochs": 1}}
_RUNS = (
    json.dumps(IDENTITY)
    + "\n"
    + json.dumps(
        {
            **{
                "model": "gmn",
                "seed": 0,
                "metrics": {"r2": 0.5},
                "answers": [1.0, 2.0],
                "shown": [],
            },
            **{"learning_rate": 0.1, "seconds": 1.0},
        }
    )
)


def _inrs(folder: Path) -> Path:
    """Networks with classes."""
    spec = converters.trace(nn.Linear(2, 3), (torch.zeros(1, 2),))
    states = {"weight": torch.randn(12, 3, 2), "bias": torch.zeros(12, 3)}
    splits = ("train", "train", "val", "test")
    rows = [{"id": f"{i:02d}", "split": splits[i % 4], "label": i % 3} for i in range(12)]
    with zoo.ZooWriter(folder, "classes", 12, 0, {}) as writer:
        writer.write_shard(0, "linear", spec, states, rows)
        writer.finish(1, {})
    return folder


def _run() -> Run:
    torch.manual_seed(0)
    return Run(nn.Linear(2, 1), _RECIPE, 0, 1)


# --- uses: all that the library does with such a folder -----------------------------------------


def _use_zoo(folder: Path) -> None:
    if random.random() < 0.2:
        zoo.reindex(folder)
    if random.random() < 0.2:
        zoo.append(folder, [folder.parent / "other"], progress=False)
    duration(folder)
    zoo.verify(folder, progress=False)
    population = zoo.open(folder)
    zoo.describe(population)
    population.graph(range(min(3, len(population))))
    population.labels("loss")
    population[0]


def _use_model(folder: Path) -> None:
    trained = load(folder)
    predict_files(trained, [folder.parent / "weights.safetensors"])


def _use_run(folder: Path) -> None:
    with run_folder(folder, []) as output:
        journal = Journal(output, lambda: IDENTITY)
        try:
            journal.resume(_run())
        finally:
            journal.close()


def _use_runs(folder: Path) -> None:
    with comparison_folder(folder) as output:
        FinishedRuns(output, lambda: IDENTITY).find("gmn", 0)


def _use_graph(folder: Path) -> None:
    graph = gmn.load(folder)
    print(graph, graph.spec, file=io.StringIO())
    with torch.no_grad():
        for net in (gmn.nn.GMN(8, 1, 2), gmn.nn.DualGMN(8, 1, 2), gmn.nn.ScaleGMN(8, 1, 2)):
            net(graph)
        gmn.nn.DualGMN(8, 1, 2, gmn.nn.Probes.like(graph.spec, 2))(graph)  # which runs the program


def _use_checkpoint(folder: Path) -> None:
    (folder / "evil.py").unlink()
    converters.load_checkpoint(folder)


USES: dict[str, Callable[[Path], None]] = {
    "zoo": _use_zoo,
    "model": _use_model,
    "run": _use_run,
    "runs": _use_runs,
    "graph": _use_graph,
    "checkpoint": _use_checkpoint,
}


# --- changes ------------------------------------------------------------------------------------


def change(folder: Path, source: random.Random) -> str:
    """Changes one file of a folder; checksums of others are mended, so that it is read."""
    files = sorted(path for path in folder.iterdir() if path.suffix not in (".py", ".lock", ".csv"))
    files = [path for path in files if path.is_file() and path.name != LOCK]
    path = source.choice(files)
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and source.random() < 0.8:
        path.write_bytes(_changed_json(content, path.suffix == ".jsonl", source))
    elif path.suffix == ".safetensors" and source.random() < 0.6:
        path.write_bytes(_changed_header(content, source))
    else:
        path.write_bytes(_changed_bytes(content, source))
    if source.random() < 0.8:
        _mend(folder)
    return path.name


def _changed_json(content: bytes, by_line: bool, source: random.Random) -> bytes:
    texts = content.splitlines() if by_line else [content]
    number = source.randrange(len(texts))
    if texts[number].strip():
        texts[number] = _changed_text(texts[number], source)
    return b"\n".join(texts)


def _changed_text(content: bytes, source: random.Random) -> bytes:
    if source.random() < 0.05:
        return source.choice([b"[" * 200_000, b'{"a":' * 100_000, b"", b"null", b"\xff\xfe", b"1"])
    document = [json.loads(content)]
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        holder: Any = document
        key: Any = 0
        while isinstance(holder[key], dict | list) and holder[key] and source.random() < 0.8:
            holder = holder[key]
            key = source.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
        kind = source.random()
        if kind < 0.2 and holder is not document:
            del holder[key]
            if not holder:
                break
        elif kind < 0.55 and type(holder[key]) is int:
            holder[key] = source.choice(NUMBERS)
        elif kind < 0.3 and isinstance(holder, list) and holder is not document:
            holder.append(deepcopy(holder[key]))
        elif kind < 0.4 and isinstance(holder, dict):
            holder[str(source.choice(VALUES))[:50]] = deepcopy(source.choice(VALUES))
        else:
            holder[key] = deepcopy(source.choice(VALUES))
    return json.dumps(document[0]).encode()


def _changed_header(content: bytes, source: random.Random) -> bytes:
    """The JSON at the head of safetensors, and the JSON in it that shards have."""
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    own = json.loads(header)
    inner = own.get("__metadata__", {}).get("gmn", "")
    if inner.startswith("{") and source.random() < 0.8:
        own["__metadata__"]["gmn"] = _changed_text(inner.encode(), source).decode("latin1")
        header = json.dumps(own).encode()
    else:
        header = _changed_text(header, source)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _changed_bytes(content: bytes, source: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(source.choice([1, 2, 8])):
        at = source.randrange(max(len(data), 1))
        end = at + source.choice([1, 4, 64])
        data[at:end] = source.choice([b"", bytes(4), b"\xff" * 8, data[:8], source.randbytes(4)])
    return bytes(data[: source.randrange(len(data) + 1)] if source.random() < 0.1 else data)


def _mend(folder: Path) -> None:
    """Writes the checksums that files now have into the manifests that tell them."""
    _mend_graph(folder)
    for name, files in (("zoo.json", ("index", "shards")), ("model.json", ())):
        try:
            facts = json.loads((folder / name).read_bytes())
            if not files:
                facts["weights_sha256"] = _sha256(folder / "model.safetensors")
            for file in [facts["index"], *facts["shards"]] if files else []:
                file["sha256"] = _sha256(folder / file["file"])
                file["bytes"] = (folder / file["file"]).stat().st_size
            (folder / name).write_text(json.dumps(facts))
        except Exception:  # what was changed may be anything
            continue


def _mend_graph(folder: Path) -> None:
    path = folder / "weights.safetensors"
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        own = json.loads(content[8 : 8 + size])
        own["__metadata__"]["spec_sha256"] = _sha256(folder / "spec.json")
    except Exception:
        return
    header = json.dumps(own).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the trial ----------------------------------------------------------------------------------


def fingerprint(folder: Path) -> str:
    """Of all files around the one that is changed."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and "it" not in place.parts and path.name not in (LOCK, "build.jsonl"):
            digest.update(f"{place}".encode() + path.read_bytes())
    return digest.hexdigest()


def trials(whole: Path, work: Path, seed: int, rounds: int) -> dict[str, Any]:
    """Uses changed folders; returns which were read, the longest time, and what went wrong."""
    source = random.Random(seed)
    random.seed(seed)
    told: dict[str, Any] = {"read": Counter(), "longest": 0.0, "faults": []}
    shutil.copytree(whole, work)
    before = fingerprint(work)
    for number in range(rounds):
        kind = source.choice([*USES])
        folder = work / kind / "it"
        shutil.rmtree(folder)
        shutil.copytree(whole / kind / "it", folder)
        name = change(folder, source)
        start, fault = time.process_time(), ""
        try:
            USES[kind](folder)
            told["read"][kind] += 1
        except REFUSALS:
            pass
        except (ValueError, KeyError) as error:
            if str(folder) not in str(error) and "no model is called" not in str(error):
                fault = f"{type(error).__name__}: {error}"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        told["longest"] = max(told["longest"], time.process_time() - start)
        if list(work.rglob("ran")):
            fault = "a stranger's code ran"
        if number % 10 == 0 and fingerprint(work) != before:
            fault = "a file outside was changed"
        if fault:
            told["faults"].append(f"seed {seed}, round {number}: {kind}, {name}: {fault[:300]}")
    return told
