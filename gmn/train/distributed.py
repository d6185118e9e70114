"""Trains on several processes started by ``torchrun``, with the steps of a single one.

Every process holds the model and the population, draws the same minibatches, and takes its part of
each. Gradients are summed, weighted by the number of networks in a part, so every step is that of
one process, whatever the sizes of the parts.

``DistributedDataParallel`` is not used: it takes the mean of gradients over processes, which is
right for parts of equal size only; it needs a forward pass on every process, which an architecture
with fewer networks in a minibatch than processes has not; and a parameter that the architectures of
a minibatch leave out would get zeros, which AdamW decays, where one process skips it.
"""

from __future__ import annotations

import atexit
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gmn.tasks.task import Task
from gmn.train.evaluate import predict
from gmn.zoo.loading import Batch
from gmn.zoo.seeds import derive_seed

if TYPE_CHECKING:
    from gmn.train.run import Run


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model; all of them call each method together.

    Alone, every method is what it would be without processes.

    Attributes:
        rank: index of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks to the user."""
        return self.rank == 0

    def require_separable(self, model: nn.Module) -> None:
        """Refuses models whose training step depends on how a minibatch is cut into parts.

        Raises:
            ValueError: if there are several processes and the model has batch normalisation.
        """
        for name, module in model.named_modules():
            if self.size > 1 and isinstance(module, _BatchNorm):
                raise ValueError(
                    f"{name}: {type(module).__name__} takes statistics over a minibatch, of which "
                    f"each of {self.size} processes sees a part only; train in one process"
                )

    def share(self, run: Run) -> None:
        """Gives all processes the state of the first: new, or read from its folder."""
        if self.size == 1:
            return
        file = io.BytesIO()
        if self.first:
            torch.save(run.state_dict(), file)
        content = [file.getvalue()]
        distributed.broadcast_object_list(content, device=torch.device("cpu"))
        if not self.first:
            state = torch.load(io.BytesIO(content[0]), map_location="cpu", weights_only=True)
            run.load_state_dict(state)

    def reseed(self, seed: int, epoch: int) -> None:
        """Reseeds processes other than the first, so that dropout differs between them.

        It follows from the seed, so that a run that goes on needs only the state of the first.
        """
        if not self.first:
            torch.manual_seed(derive_seed(seed, "rank", self.rank, epoch))

    def parts(self, batches: Sequence[Batch]) -> list[Batch]:
        """This process' part of batches: consecutive networks, empty batches left out.

        Cutting every batch would leave nearly all to the last process where each holds one network.
        """
        if self.size == 1:
            return list(batches)
        total, first, result = sum(map(len, batches)), 0, []
        low, high = (total * rank // self.size for rank in (self.rank, self.rank + 1))
        for batch in batches:
            start, stop = max(low - first, 0), min(high - first, len(batch))
            if start < stop:
                result.append(batch[start:stop])
            first += len(batch)
        return result

    def in_one_memory(self, batch: Batch) -> int:
        """Networks of a batch that share a memory: a part on a GPU of its own, else all."""
        return -(-len(batch) // self.size) if batch.graph.device.type == "cuda" else len(batch)

    def sum(self, value: float) -> float:
        """The sum of a number over processes."""
        return value if self.size == 1 else float(_summed(torch.tensor(value, dtype=torch.float64)))

    def sum_gradients(self, model: nn.Module) -> None:
        """Sums gradients over processes; a parameter that none of them used stays without."""
        if self.size == 1:
            return
        chosen = [p for p in model.parameters() if p.requires_grad]
        if not chosen:
            return
        used = _summed(torch.tensor([p.grad is not None for p in chosen], dtype=torch.int32))
        chosen = [p for p, times in zip(chosen, used.tolist(), strict=True) if times]
        for dtype in dict.fromkeys(p.dtype for p in chosen):
            alike = [p for p in chosen if p.dtype == dtype]
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in alike]
            total = _summed(torch.cat([gradient.flatten() for gradient in own]))
            for p, piece in zip(alike, total.split([p.numel() for p in alike]), strict=True):
                p.grad = piece.view_as(p)

    def predict(
        self, model: nn.Module, task: Task, parts: Sequence[Batch], batch_size: int
    ) -> tuple[Tensor, Tensor]:
        """:func:`gmn.train.predict`, of which every process does its part and gets all."""
        if self.size == 1:
            return predict(model, task, parts, batch_size)
        own = self.parts(parts)
        prediction = predict(model, task, own, batch_size)[0] if own else None
        pieces: list[Any] = [None] * self.size
        distributed.all_gather_object(pieces, prediction)
        whole = torch.cat([piece for piece in pieces if piece is not None])
        return whole, torch.cat([part.target for part in parts]).cpu()

    def wait(self) -> None:
        """Waits until all processes have called it."""
        self.sum(0.0)


def _summed(value: Tensor) -> Tensor:
    distributed.all_reduce(value)
    return value


@cache
def ranks() -> Ranks:
    """The processes that ``torchrun`` started, or this one alone.

    They talk by gloo about tensors on the CPU and by NCCL about those on CUDA, where every process
    then has a device of its own, which is made the current one.
    """
    if not distributed.is_available():
        return Ranks()
    if not distributed.is_initialized():
        # Helpers that a process of torchrun starts inherit its variables, but are not its ranks.
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys() or parent_process() is not None:
            return Ranks()
        _connect()
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def _connect() -> None:
    own, devices = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    several = devices >= int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 0 and devices > 0
    if several:
        torch.cuda.set_device(own)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if several else "gloo")
    atexit.register(distributed.destroy_process_group)
