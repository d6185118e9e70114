"""Programs that ask for too much, or for what is not theirs, are refused before they run.

They are tried in a process of their own, with little memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gmn.spec.budget import FREE, FREE_RUNS, PER_NUMBER
from gmn.spec.program import (
    Call,
    Constant,
    Factor,
    Input,
    Lookup,
    Observation,
    Program,
    ProgramError,
    Side,
)

SECONDS, MEGABYTES = 5, 200  # on a busy machine, too
X, W = {"value": "x"}, {"value": "w"}  # 4 numbers of input; 3 × 4 weights
MANY = 2**40
Line = tuple[Any, ...]  # operation, arguments, and options last if it has any


def doubled(times: int) -> list[Line]:
    return [("cat.default", [X, X])] + [
        ("cat.default", [{"value": f"v{n}"}, {"value": f"v{n}"}]) for n in range(times)
    ]


def squared(side: int) -> list[Line]:
    """A matrix of ones, multiplied with itself again and again."""
    first: list[Line] = [("ones.default", [side, side])]
    return first + [("mm.default", {"value": f"v{n}"}, {"value": "v0"}) for n in range(50)]


def wide(*rest: Line) -> list[Line]:
    """A row of many numbers, which is v0."""
    return [("ones.default", [1, 1, 2 * 10**7]), *rest]


V0, V1, V2 = ({"value": f"v{n}"} for n in range(3))
TOO_MUCH: dict[str, list[Line]] = {
    "repeat": [("repeat.default", X, [MANY])],
    "expand": [("expand.default", X, [MANY, 4]), ("add.Tensor", V0, 1)],
    "zeros": [("zeros.default", [MANY])],
    "zeros of two sides": [("zeros.default", [2**31, 2**31])],
    "zeros beyond all numbers": [("zeros.default", [2**62, 2**62])],
    "no numbers, in many rows": [("zeros.default", [MANY, 0]), ("unbind.int", V0)],
    "new_zeros": [("new_zeros.default", X, [MANY])],
    "full": [("full.default", [MANY], 1.0)],
    "empty": [("empty.memory_format", [MANY])],
    "eye": [("eye.default", 2**21)],
    "arange": [("arange.default", MANY)],
    "arange in small steps": [("arange.start_step", 0, 1, 1e-12)],
    "linspace": [("linspace.default", 0, 1, MANY)],
    "logspace": [("logspace.default", 0, 1, MANY)],
    "window": [("hann_window.default", MANY)],
    "randperm": [("randperm.default", MANY)],
    "triangle": [("tril_indices.default", 2**21, 2**21)],
    "pad": [("pad.default", X, [0, MANY])],
    "constant pad": [("constant_pad_nd.default", X, [MANY, 0])],
    "interpolate": [
        ("view.default", W, [1, 1, 3, 4]),
        ("upsample_nearest2d.vec", V0, [2**20, 2**20], None),
    ],
    "interpolate by factors": [
        ("view.default", W, [1, 1, 3, 4]),
        ("upsample_bilinear2d.vec", V0, None, False, [1e6, 1e6]),
    ],
    "one-hot": [
        ("argmax.default", W, 1),
        ("one_hot.default", V0, MANY),
    ],
    "repeat_interleave": [("repeat_interleave.self_int", X, MANY)],
    "tile": [("tile.default", X, [2**20, 2**20])],
    "doubling": doubled(60),
    "doubling sums": [
        ("unsqueeze.default", X, 0),
        *(("add.Tensor", {"value": f"v{n}"}, {"value": f"v{n}"}) for n in range(3)),
        *(("kron.default", {"value": f"v{n}"}, {"value": f"v{n}"}) for n in range(3, 10)),
    ],
    "broadcast": [
        ("ones.default", [10**6, 1]),
        ("ones.default", [1, 10**6]),
        ("mul.Tensor", V0, V1),
    ],
    "outer product": [("ones.default", [10**6]), ("outer.default", V0, V0)],
    "matmul": [
        ("ones.default", [10**6, 1]),
        ("linear.default", V0, V0),
    ],
    "grid": [("ones.default", [10**6]), ("meshgrid.default", [V0, V0])],
    "distances": [("ones.default", [10**6, 1]), ("cdist.default", V0, V0)],
    "combinations": [("arange.default", 5000), ("combinations.default", V0, 4)],
    "an einsum": [("ones.default", [10**5]), ("einsum.default", "i,j,k->ijk", [V0, V0, V0])],
    "strides": [("as_strided.default", X, [2**30, 2**30], [0, 0]), ("sum.default", V0)],
    "transposed convolution": [
        ("ones.default", [1, 1, 1]),
        ("conv_transpose1d.default", V0, V0, None, [2**30], [0], [2**30 - 1]),
    ],
    "padded convolution": [
        ("ones.default", [1, 1, 1]),
        ("conv1d.default", V0, V0, None, [1], [MANY]),
    ],
    "fourier": [("fft_fft.default", X, MANY)],
    "bins": [("histc.default", X, MANY)],
    "pieces": [("ones.default", [10**7]), ("split.Tensor", V0, 1)],
    "copied rows": [("ones.default", [10**7, 1]), ("unbind_copy.int", V0)],
    "rows": [("ones.default", [10**7, 1]), ("unbind.int", V0)],
    "sections": [("ones.default", [10**7]), ("tensor_split.sections", V0, 10**7)],
    "chunks": [("ones.default", [10**7]), ("chunk.default", V0, 10**7)],
    "a long product": squared(5000),
    "a wide window": wide(("max_pool1d.default", V0, [10**7], [1])),
    "a wide average": wide(("avg_pool1d.default", V0, [10**7], [1])),
    "a wide kernel": wide(("slice.Tensor", V0, 2, 0, 10**7), ("conv1d.default", V0, V1)),
    "singular values": [("ones.default", [9000, 9000]), ("linalg_svd.default", V0)],
    "an inverse": [("eye.default", 9000), ("linalg_inv.default", V0)],
    "many steps": [
        ("ones.default", [10**6, 1, 1]),
        ("ones.default", [1, 1, 1]),
        ("ones.default", [1, 1]),
        ("rnn_tanh.input", V0, V1, [V2, V2], False, 1, 0.0, False, False, False),
    ],
}  # fmt: skip
NOT_THEIRS: dict[str, list[Line]] = {
    "a file": [("from_file.default", "/etc/passwd", False, 10)],
    "an unknown operation": [("ghost.default", X)],
    "an attribute": [("__class__.__init__", X)],
    "a packet of torch": [("mul.overloads", X)],
    "a name that is none": [("\ud800.default", X)],
    "unchecked places": [
        ("embedding_dense_backward.default", X, {"value": "w"}, 3, -1, False),
    ],
    "unchecked rows": [("_sparse_coo_tensor_unsafe.default", X, X, [4])],
    "storage": [("set_.source_Tensor", X, W)],
    "more storage": [("resize_.default", X, [MANY])],
    "printing": [("_print.default", "hello")],
    "endless polynomials": [("special_chebyshev_polynomial_t.n_scalar", X, 10**15)],
    "results of another shape": [
        ("ones.default", [1000, 4]),
        ("svd.U", V0, {"U": W, "S": V0, "V": X}),
    ],
    "hidden sums": [("mvlgamma.default", X, 10**12)],
}
NOT_THEIRS |= {  # which torch takes as it is, up to a segmentation fault
    "a format by number": [("clone.default", X, {"memory_format": -1})],
    "a layout by number": [("zeros.default", [2], {"layout": 77})],
    "a type by number": [("zeros.default", [2], {"dtype": 99})],
    "a type by its place": [("sum.default", X), ("to.dtype", X, 99)],
    "a type by a value": [("size.int", X, 0), ("to.dtype", X, V0)],
}
NONSENSE: dict[str, list[Line]] = {
    "places of a run": [("nonzero.default", X)],
    "a number of a run": [("sum.default", X), ("item.default", V0)],
    "repeats of a run": [("argmax.default", W, 1), ("repeat_interleave.Tensor", V0)],
    "counts of a run": [("argmax.default", W, 1), ("bincount.default", V0, None, MANY)],
    "shapes that do not fit": [("mm.default", X, W)],
    "a value that is not there": [("relu.default", {"value": "ghost"})],
    "too few arguments": [("linear.default",)],
    "a text as a tensor": [("relu.default", "x")],
    "a type that is none": [("zeros.default", [2], {"dtype": {"dtype": "nn"}})],
    "a part that is not there": [("unbind.int", W), ("getitem", V0, 7)],
}
PROGRAMS = {**TOO_MUCH, **NOT_THEIRS, **NONSENSE}


def program(*lines: Line) -> Program:
    """Of lines, the n-th of which gives v0, v1, ...; and of what sees the last one."""
    calls = []
    for number, (operation, *arguments) in enumerate(lines):
        options = arguments.pop() if arguments and _is_options(arguments[-1]) else {}
        calls.append(Call(f"v{number}", operation, json.dumps([arguments, options])))
    return Program((Input("x", (4,), "default"),), (Lookup("w", "weight"),), (), tuple(calls), ())


def _is_options(argument: object) -> bool:
    return isinstance(argument, dict) and "value" not in argument


def tried(own: Program) -> dict[str, Any]:
    """What comes of a run of one network, and what it took."""
    before, start = _megabytes(), time.process_time()
    try:
        own.run({"weight": torch.ones(3, 4)}, [torch.ones(4)])
        error = "none"
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    return {
        "error": error,
        "seconds": time.process_time() - start,
        "megabytes": _megabytes() - before,
    }


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.gmn.test_hostile_programs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_is_refused(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[name]
    assert outcome["error"].startswith("ProgramError: "), outcome
    assert outcome["seconds"] < SECONDS, outcome
    assert outcome["megabytes"] < MEGABYTES, outcome
    operation = PROGRAMS[name][-1][0].partition(".")[0]
    assert name in TOO_MUCH or name == "a name that is none" or operation in outcome["error"]


def test_the_message_names_operation_and_size() -> None:
    with pytest.raises(ProgramError, match=r"repeat\.default brings a run to 4,398,046,511,104"):
        program(*TOO_MUCH["repeat"]).run({"weight": torch.ones(3, 4)}, [torch.ones(4)])


def test_many_runs_at_once_have_a_budget_together() -> None:
    own = program(("expand.default", X, [FREE // 8, 4]))
    own.observe({"weight": torch.ones(2, 3, 4)}, [torch.ones(3, 4)])
    with pytest.raises(ProgramError, match=r"64 runs at once .* pass fewer networks or inputs"):
        own.observe({"weight": torch.ones(8, 3, 4)}, [torch.ones(8, 4)])
    assert FREE_RUNS * FREE + 64 * PER_NUMBER * 16 < 64 * FREE / 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1e999", "the program"), ("[" * 50_000, "the program"), ("[[1], [2, 3]]", "the program")],
)
def test_constants_that_are_none(text: str, message: str) -> None:
    own = program()
    own = Program(own.inputs, own.lookups, (Constant("c", "default", text),), (), ())
    with pytest.raises(ProgramError, match=message):
        own.run({"weight": torch.ones(3, 4)}, [torch.ones(4)])


@pytest.mark.parametrize(
    "observation",
    [
        Observation("ghost", "nodes", None, ()),
        Observation("x", "nodes", None, (Side(0, (Factor(MANY, 0),)),)),
        Observation("x", "nodes", None, (Side(3, (Factor(4, 0),)),)),
    ],
)
def test_observations_of_what_is_not_there(observation: Observation) -> None:
    own = program()
    own = Program(own.inputs, own.lookups, (), (), (observation,))
    with pytest.raises(ProgramError, match=f"the observation of {observation.value} cannot be"):
        own.observe({"weight": torch.ones(2, 3, 4)}, [torch.ones(2, 4)])


@pytest.mark.parametrize("arguments", ["", "[]", "[1, 2, 3]", "7", "[" * 50_000, '[[], {"a": 1}]'])
def test_arguments_that_are_none(arguments: str) -> None:
    own = program()
    own = Program(own.inputs, own.lookups, (), (Call("v", "relu.default", arguments),), ())
    with pytest.raises(ProgramError, match="cannot be run"):
        own.run({"weight": torch.ones(3, 4)}, [torch.ones(4)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    tried(program(("relu.default", X)))  # what torch imports for it is not theirs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
    print(json.dumps({name: tried(program(*lines)) for name, lines in PROGRAMS.items()}))
