"""What a random program shows about the tracer: refusals, crashes, claims that are false."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

import converters
import gmn
from converters.proof.completeness import measure
from converters.proof.running import Given
from gmn.spec import GraphSpec

from .oracle import TOLERANCE, doubles, errors, inferred, moves, random_state, same
from .programs import Program, shrink


@dataclass(frozen=True)
class Finding:
    """What came of one program.

    Attributes:
        program: the program.
        spec: its spec; None if it was refused or tracing broke.
        refusal: the message of the TraceError.
        faults: one line each; the kind of fault stands before the colon.
    """

    program: Program
    spec: GraphSpec | None = None
    refusal: str = ""
    faults: tuple[str, ...] = ()

    @property
    def kinds(self) -> set[str]:
        return {fault.split(":")[0] for fault in self.faults}

    def __str__(self) -> str:
        return "\n".join([*self.faults, str(self.program)])


def examine(program: Program, seed: int = 0) -> Finding:
    """Traces a program, and holds every claim against the program itself on random weights."""
    with doubles():
        torch.manual_seed(seed)
        model, example = program.module(), program.inputs()
        try:
            spec = inferred(model, example)
        except converters.TraceError as error:
            silent = () if _names(str(error), program) else (f"names no operation: {error}",)
            return Finding(program, refusal=str(error), faults=silent)
        except Exception as error:
            return Finding(program, faults=(f"tracing ends in {_line(error)}",))
        try:
            faults = (*_loses(model, spec), *_claims(program, model, spec, seed))
        except Exception as error:
            faults = (f"acting ends in {_line(error)}",)
        return Finding(program, spec, faults=faults)


def missed(finding: Finding, seed: int = 0) -> int:
    """Dimensions of continuous symmetries that a spec leaves out; -1 if they cannot be counted."""
    if finding.spec is None:
        return -1
    with doubles():
        torch.manual_seed(seed)
        model, given = finding.program.module(), Given(finding.program.inputs())
        generator = torch.Generator().manual_seed(seed)
        try:
            return measure(model, given, finding.spec, generator).missed
        except (ValueError, RuntimeError):  # integer outputs, operations without a derivative
            return -1


def shrunk(finding: Finding, seed: int = 0) -> Finding:
    """A smaller program with a fault of the same kind."""
    kinds = finding.kinds
    return examine(
        shrink(finding.program, lambda smaller: bool(examine(smaller, seed).kinds & kinds)), seed
    )


def _names(message: str, program: Program) -> bool:
    """Whether a message names an operation of the program, or of those that it is made of."""
    called = re.findall(r"\.(\w+)\(", str(program))
    return "aten" in message or any(name.strip("_") in message for name in called)


def _loses(model: nn.Module, spec: GraphSpec) -> list[str]:
    """Entries of the state dict that a graph does not give back bit for bit."""
    state = model.state_dict()
    back = gmn.ParameterGraph.from_state_dicts(spec, [state]).to_state_dict(0)
    if list(back) != list(state):
        return [f"other entries: {list(back)} for {list(state)}"]
    return [f"lost: {name}" for name, value in state.items() if not same(back[name], value)]


def _claims(program: Program, model: nn.Module, spec: GraphSpec, seed: int) -> list[str]:
    state = random_state(model, seed)
    tried = list(moves(spec, state, torch.Generator().manual_seed(seed + 7)))
    inputs = [program.inputs(True, 1.0), program.inputs(True, 8.0), program.inputs(True, 0.1)]
    found = zip(tried, errors(model, state, inputs, tried), strict=True)
    false = [(move, error) for move, error in found if not error <= TOLERANCE]
    if len(false) > 1:  # all together err where one of them does
        false = [(move, error) for move, error in false if move.kind != "all"]
    return [
        f"false {move.kind}: {move.name} changes outputs by {error:.0e}" for move, error in false
    ]


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0][:100]
    return f"{type(error).__name__}: {first}"
