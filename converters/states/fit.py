"""Matches a checkpoint's names to a spec's: prefixes, tied entries, counters that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gmn.foundation.arguments import require_several, require_type
from gmn.graph.required import require_spec
from gmn.graph.values import require_tensors
from gmn.spec import GraphSpec, StateEntry


def fit_state(
    spec: GraphSpec, state: Mapping[str, Tensor], prefixes: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Renames a checkpoint's tensors to a spec's names, where the match is unambiguous.

    A tied entry that the file leaves out is taken from the one it is tied to; integer tensors that
    the network does not have are left out; counters of batches, which old files lack, are zero.
    Names may all have, or all lack, one of the prefixes.

    Args:
        spec: the architecture.
        state: tensors by name, as :func:`converters.load_checkpoint` gives them.
        prefixes: to take off all names, or to put before them, if this makes them fit.

    Returns:
        A state dict for :meth:`gmn.ParameterGraph.from_state_dicts`, which says what does not fit.

    Example:
        >>> import torch, converters
        >>> spec = converters.trace(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        >>> state = {"net.weight": torch.ones(3, 2), "net.bias": torch.ones(3)}
        >>> list(converters.fit_state(spec, state, prefixes=["net."]))
        ['weight', 'bias']
    """
    require_spec("spec", spec)
    require_tensors("state", state)
    require_several("prefixes", prefixes, "texts before names, such as ['model.']")
    entries = {entry.name: entry for entry in spec.entries}
    named = max(_namings(state, prefixes), key=lambda names: len(entries.keys() & names.keys()))
    result = dict(named)
    for name, tensor in named.items():
        if name not in entries and not (tensor.is_floating_point() or tensor.is_complex()):
            del result[name]
    for entry in spec.entries:
        if entry.name not in result:
            implied = _implied(entry, spec, result)
            result |= {} if implied is None else {entry.name: implied}
    return result


def _namings(
    state: Mapping[str, Tensor], prefixes: Iterable[str]
) -> Iterable[Mapping[str, Tensor]]:
    yield state
    for prefix in filter(None, prefixes):
        require_type("a prefix", prefix, str, "text")
        yield {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        yield {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _implied(entry: StateEntry, spec: GraphSpec, state: Mapping[str, Tensor]) -> Tensor | None:
    if entry.name.rpartition(".")[2] == "num_batches_tracked" and not entry.floating:
        return torch.zeros(entry.shape, dtype=torch.int64)
    owner = entry.tied_to or entry.name
    group = [e.name for e in spec.entries if (e.tied_to or e.name) == owner]
    return next((state[name] for name in group if name in state), None)
