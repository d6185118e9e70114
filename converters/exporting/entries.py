"""Lists the entries of a module's state dict, and which of them share memory."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gmn.spec import StateEntry

from ..inference.tracing import TraceError
from .storage import View, shared_views


def state_entries(model: nn.Module) -> list[StateEntry]:
    """The state dict of a module, entry by entry."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    owner: dict[int, str] = {}
    entries = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise TraceError(
                f"{name}: the state dict holds a {type(tensor).__name__}, not a tensor"
            )
        first = owner.setdefault(id(tensor), name)
        entries.append(
            StateEntry(
                name,
                tuple(tensor.shape),
                name in parameters,
                tensor.is_floating_point(),
                None if first == name else first,
                tensor.is_complex(),
            )
        )
    return entries


def entry_views(model: nn.Module, entries: Sequence[StateEntry]) -> dict[str, View]:
    """Entries that share memory with others, each with the first one that does."""
    views = shared_views(model)
    owners = {entry.name: entry.tied_to or entry.name for entry in entries}
    result: dict[str, View] = {}
    for name, view in views.items():
        owner, dims = owners[view.owner], view.dims
        if owner in result and owner != name:
            first = result[owner]
            known = dims is not None and first.dims is not None
            dims = tuple(first.dims[d] for d in dims) if known else None  # type: ignore[index,union-attr]
            owner = first.owner
        result[name] = View(owner, dims)
    return result
