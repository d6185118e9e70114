"""What the tracer claims of modules on which it may go wrong, and what it must find.

As a script it prints a line per case:

    python -m tests.converters.test_soundness [word of a kind]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn import symmetry
from gmn.nn import GMN, DualGMN
from gmn.spec import GraphSpec
from tests.traced import one_in

from .oracle import (
    TOLERANCE,
    Move,
    State,
    change,
    doubles,
    errors,
    inferred,
    moves,
    outputs,
    random_state,
)
from .soundness import CASES, Case

# A larger group does for a smaller one.
WITHIN = {
    "permutation": {"permutation", "orthogonal", "general"},
    "sign": {"sign", "orthogonal", "general"},
    "positive": {"positive", "general"},
    "orthogonal": {"orthogonal", "general"},
}
BY_KIND = sorted(CASES, key=lambda case: case.kind)  # which has five cases at least


@pytest.mark.parametrize("case", CASES, ids=str)
def test_stated_laws_hold(case: Case) -> None:
    assert not false_laws(case)


@pytest.mark.parametrize("case", one_in(10, BY_KIND))
@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_claims_hold_and_laws_are_found(case: Case, seeds: int) -> None:
    """On random weights of some seeds."""
    assert not faults(case, seeds)


def test_names_are_unique() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)


def false_laws(case: Case) -> list[str]:
    """Laws of the case that are no symmetries of its module, or move nothing."""
    if not case.laws:
        return []
    with doubles():
        model, inputs = _build(case), _fresh(case)
        state, generator = random_state(model, 0), torch.Generator().manual_seed(0)
        tried = [
            Move(kind, ", ".join(sorted(law.entries)), law.act(kind, state, generator))
            for law in case.laws
            for kind in law.kinds
        ]
        found = zip(tried, errors(model, state, inputs, tried), strict=True)
        return [
            f"untrue {move}: {error:.0e}"
            for move, error in found
            if not (error <= TOLERANCE and move.moved(state))
        ]


def faults(case: Case, seeds: int) -> list[str]:
    """What is wrong with the spec of a case, a line each; none if all claims hold and suffice."""
    with doubles():
        model, example = _build(case), case.example()
        try:
            spec = inferred(model, example)
        except converters.TraceError as error:
            return [] if case.may_refuse else [f"refused: {_line(error)}"]
        except Exception as error:
            return [f"tracing ends in {_line(error)}"]
        try:
            return [*_claims(case, model, spec, seeds), *_blind(case, model, spec)]
        except Exception as error:
            return [f"acting ends in {_line(error)}"]


def _claims(case: Case, model: nn.Module, spec: GraphSpec, seeds: int) -> Iterator[str]:
    """Claimed generators that change the function, and laws that no claimed generators obey."""
    wrong: dict[str, float] = {}
    moved: dict[str, set[str]] = {}
    for seed in range(seeds):
        state = random_state(model, seed)
        torch.manual_seed(seed + 11)
        inputs, generator = _fresh(case), torch.Generator().manual_seed(seed + 7)
        tried = list(moves(spec, state, generator, permutations=not case.stochastic))
        for move, error in zip(tried, errors(model, state, inputs, tried), strict=True):
            if not error <= TOLERANCE:
                wrong[str(move)] = max(error, wrong.get(str(move), 0.0))
            elif move.kind != "all":
                moved.setdefault(move.kind, set()).update(move.moved(state))
    if len(wrong) > 1:  # all together err where one of them does
        wrong.pop("all generators", None)
    yield from (f"false {move}: {error:.0e}" for move, error in wrong.items())
    for law in case.laws:
        for kind in law.kinds:
            reached = set().union(*(moved.get(k, set()) for k in WITHIN.get(kind, {kind})))
            if missing := sorted(law.entries - reached):
                yield f"missed {kind} of {', '.join(missing)}"


def _blind(case: Case, model: nn.Module, spec: GraphSpec) -> Iterator[str]:
    """Metanetworks that answer alike for another function, or not alike for the same."""
    state = random_state(model, 0)
    order = symmetry.sample(spec, torch.Generator().manual_seed(0), symmetries=("permutations",))
    for name, alter in case.sees:
        changed = {**state, name: alter(state[name])}
        torch.manual_seed(11)
        inputs = case.fresh[0]()
        if change(outputs(model, changed, inputs), outputs(model, state, inputs)) < 1e-3:
            yield f"void: changing {name} changes nothing"
        for metanetwork in (GMN, DualGMN):
            torch.manual_seed(0)
            net = metanetwork(hidden=16, depth=2).eval()
            try:
                answers = [_answer(net, spec, each) for each in (state, changed, order.act(state))]
            except gmn.StateDictError as error:
                if not case.may_refuse:
                    yield f"refused: {_line(error)}"
                continue
            if not change(answers[1:2], answers[:1]) > 1e-9:
                yield f"{metanetwork.__name__} does not see {name}"
            if not change(answers[2:], answers[:1]) <= TOLERANCE:
                yield f"{metanetwork.__name__} is not invariant"


def _answer(net: nn.Module, spec: GraphSpec, state: State) -> Tensor:
    with torch.no_grad():
        return net(gmn.ParameterGraph.from_state_dicts(spec, [state]))


def _build(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build().eval()


def _fresh(case: Case) -> list[tuple[Tensor, ...]]:
    return [make() for make in case.fresh]


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:90]}"


def main(word: str = "") -> int:
    """Prints a line per case whose kind holds the word, and a count; 1 if any has a fault."""
    torch.set_num_threads(1)
    wrong = 0
    chosen = [case for case in CASES if word in case.kind]
    for case in chosen:
        found = [*false_laws(case), *faults(case, seeds=2)]
        wrong += bool(found)
        print(f"{case.kind:<18} {case.name:<38} {' | '.join(found) or 'ok'}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} cases hold")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
