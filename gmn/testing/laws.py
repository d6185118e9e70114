"""The laws of metanetworks as a test class: a model passes by inheriting from it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from gmn import symmetry
from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.spec import EdgeSet, GraphSpec
from gmn.testing.assertions import assert_equivariant, assert_invariant, relative_error
from gmn.testing.networks import NETWORKS, population, with_operations, with_roles


class MetanetworkLaws:
    """Tests that hold a metanetwork against what it declares; for pytest, or :meth:`check`.

    A test module of your own needs three lines::

        class TestMine(gmn.testing.MetanetworkLaws):
            def build(self, spec, head):
                return Mine(hidden=16, head=head)

    where ``Mine`` has an attribute ``symmetries`` (or else the test class has). Laws that a model
    does not claim are declared, not deleted: ``notices = ("parameters", "neurons")`` for one that
    reads weights alone.

    Attributes:
        names: architectures to test on; several tests run once for each.
        symmetries: what answers are invariant to, of :data:`gmn.symmetry.KINDS`; None for the
            model's own ``symmetries``.
        notices: what the model must see: every one of the ``"parameters"``; which ``"neurons"``
            of a weight are those of the next; ``"operations"`` (stride, padding, activation);
            ``"roles"`` (which weight holds queries, keys or values).
        edits: whether ``build`` also takes an :class:`gmn.nn.EditHead`.
        tolerance: largest relative change of an answer by what should not change it, in float64.
        smallest: least relative change of an answer by what should.
    """

    names: Sequence[str] = tuple(NETWORKS)
    symmetries: Collection[str] | None = None
    notices: Collection[str] = ("parameters", "neurons", "operations", "roles")
    edits = True
    tolerance = 1e-9
    smallest = 1e-10

    def build(self, spec: GraphSpec, head: int | EditHead) -> nn.Module:
        """The model for networks of an architecture, with a seed that the caller sets."""
        raise NotImplementedError("build(spec, head) returns your model")

    def graph(self, name: str, networks: int = 2) -> ParameterGraph:
        """Random networks of an architecture, float64."""
        return population(name, networks)

    def check(self) -> None:
        """All laws on all architectures, without pytest.

        Raises:
            AssertionError: of the first law that does not hold.
        """
        for label in (label for label in dir(self) if label.startswith("test_")):
            test = getattr(self, label)
            if "name" in signature(test).parameters:
                for name in self.names:
                    test(name)
            else:
                test()

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test for each architecture."""
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", metafunc.cls.names)

    # --- what may not change an answer ---

    def test_answers_are_invariant(self, name: str) -> None:
        """To every kind of symmetry that it claims, all at once."""
        graph = self.graph(name)
        net = self._net(graph.spec)
        assert_invariant(net, graph, symmetries=self._claims(net), tolerance=self.tolerance)

    def test_edits_move_with_the_networks(self, name: str) -> None:
        """Editing and then moving is moving and then editing."""
        if self.edits:
            graph = self.graph(name)
            net = self._net(graph.spec, EditHead())
            claims = self._claims(net)
            assert_equivariant(net, graph, symmetries=claims, tolerance=self.tolerance)

    def test_single_precision(self, name: str) -> None:
        """In the type of its inputs, and invariant as far as that type goes."""
        graph = self.graph(name).to(dtype=torch.float32)
        net = self._net(graph.spec).float()
        found = net(graph).dtype
        assert found == torch.float32, f"answers networks in float32 in {found}"
        assert_invariant(net, graph, symmetries=self._claims(net), tolerance=1e-4)

    def test_a_batch_is_its_networks(self, name: str) -> None:
        """Networks of a batch do not see each other."""
        graph = self.graph(name, 3)
        net = self._net(graph.spec)
        with torch.no_grad():
            alone = torch.cat([net(graph[number : number + 1]) for number in range(3)])
            change = relative_error(net(graph), alone)
        assert change <= self.tolerance, f"other networks of a batch change answers by {change:.1e}"

    # --- what must ---

    def test_every_parameter_matters(self, name: str) -> None:
        """But for those that a claimed symmetry may set to anything."""
        if "parameters" in self.notices:
            graph, generator = self.graph(name), torch.Generator().manual_seed(0)
            net = self._net(graph.spec)
            changed = {}
            for edges in _read(graph, self._claims(net)):
                values = graph.pairs(edges)
                noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) + 0.5
                changed[edges.name] = graph.replace_pairs({edges.name: values * noise})
            self._assert_noticed(net, graph, changed)

    def test_one_sided_permutations_are_noticed(self, name: str) -> None:
        """Neurons that move in one weight, but not in those that read or write them."""
        if "neurons" in self.notices:
            graph = self.graph(name)
            self._assert_noticed(self._net(graph.spec), graph, dict(_one_sided(graph)))

    def test_other_operations_are_noticed(self) -> None:
        """Equal weights, another function."""
        if "operations" in self.notices:
            for one, other in with_operations():
                self._assert_noticed(self._net(one.spec), one, {"operation": other})

    def test_exchanged_roles_are_noticed(self) -> None:
        """Weights of queries, keys and values that trade places."""
        if "roles" in self.notices:
            graph, exchanged = with_roles()
            self._assert_noticed(self._net(graph.spec), graph, exchanged)

    # --- gradients, files ---

    def test_gradients_are_finite(self, name: str) -> None:
        """At weights of zero, of 1e-15, of ten thousand, at dead and at equal neurons."""
        graph = self.graph(name)
        wrong = self._not_finite(graph, [*DAMAGE.values()])  # in one batch: six times as fast
        labels = [label for label, d in DAMAGE.items() if wrong and self._not_finite(graph, [d])]
        named = ", ".join(labels) or "in one batch"
        assert not wrong, f"{named}: gradients of {', '.join(wrong)} are not finite"

    def _not_finite(
        self, graph: ParameterGraph, damages: Sequence[Callable[[Tensor], Tensor]]
    ) -> list[str]:
        """Weights and parameters whose gradients are not finite, with each damage done."""
        net = self._net(graph.spec)
        weights = sorted({e.parameter for e in graph.spec.edge_sets if e.kind == "weight"})
        damaged = {
            n: torch.cat([damage(graph.values[n]) for damage in damages]).requires_grad_()
            for n in weights
        }
        together = ParameterGraph.cat([graph] * len(damages))
        net(together.replace(damaged)).square().sum().backward()
        found = [(n, v.grad) for n, v in (*damaged.items(), *net.named_parameters())]
        missing = [n for n, gradient in found[: len(damaged)] if gradient is None]
        assert not missing, f"no gradient reaches the weights {', '.join(missing)}"
        return [n for n, g in found if g is not None and not g.isfinite().all()]

    def test_gradients_reach_every_parameter(self) -> None:
        """On some architecture each, once training has moved what starts at zero."""
        silent: set[str] = set()
        for number, name in enumerate(self.names):
            graph = self.graph(name)
            net = self._net(graph.spec)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.add_(0.01)
            net(graph).square().sum().backward()
            found = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
            silent = silent & found if number else found
            if not silent:
                return
        raise AssertionError(f"no gradient ever reaches {', '.join(sorted(silent))}")

    def test_recomputed_layers_give_the_same(self, name: str) -> None:
        """The same gradients, for models with an attribute ``recompute``."""
        graph = self.graph(name)
        net = self._net(graph.spec)
        if "recompute" in vars(net):
            gradients = []
            for recompute in (False, True):
                net.zero_grad()
                vars(net)["recompute"] = recompute
                net(graph).square().sum().backward()
                gradients.append([p.grad for p in net.parameters() if p.grad is not None])
            for kept, again in zip(*gradients, strict=True):
                torch.testing.assert_close(again, kept)

    def test_state_dicts_come_back(self, name: str) -> None:
        """Another model of the same class answers the same with its parameters; so does a copy."""
        graph = self.graph(name)
        net, other = self._net(graph.spec), self._net(graph.spec, seed=1)
        with torch.no_grad():
            expected = net(graph)
            other.load_state_dict(net.state_dict())
            assert torch.equal(other(graph), expected), "its state dict does not hold all of it"
            assert torch.equal(copy.deepcopy(net)(graph), expected), "a copy answers otherwise"

    # --- how ---

    def _net(self, spec: GraphSpec, head: int | EditHead = 3, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build(spec, head).double()

    def _claims(self, net: nn.Module) -> Collection[str]:
        declared = getattr(net, "symmetries", None) if self.symmetries is None else self.symmetries
        if declared is None:
            raise TypeError(
                f"{type(net).__name__} does not say what it is invariant to: give it, or the test "
                f"class, an attribute symmetries with some of {', '.join(symmetry.KINDS)}"
            )
        return declared

    def _assert_noticed(
        self, net: nn.Module, graph: ParameterGraph, changed: Mapping[str, ParameterGraph]
    ) -> None:
        same = {name: other for name, other in changed.items() if other.spec == graph.spec}
        with torch.no_grad():
            own, *answers = net(ParameterGraph.cat([graph, *same.values()])).split(len(graph))
            found = dict(zip(same, answers, strict=True))
            found |= {name: net(other) for name, other in changed.items() if name not in same}
        for name, answer in found.items():
            change = relative_error(answer, own)
            assert change > self.smallest, f"{name}: must be seen, but moves it {change:.1e}"


def _read(graph: ParameterGraph, claims: Collection[str]) -> Iterator[EdgeSet]:
    """Edge sets that decide the function, but those whose numbers a translation may all move."""
    spec = graph.spec
    free = set()
    if "translations" in claims:
        for translation in spec.translations:
            term, *others = translation.terms
            if not others and len(term.dims) == len(spec.edge_set(term.edge_set).dims):
                free.add(term.edge_set)
    for edges in spec.edge_sets:
        known = edges.tied_to is not None or edges.operation.name == "unused"
        if edges.size and not known and edges.name not in free:
            yield edges


def _one_sided(graph: ParameterGraph) -> Iterator[tuple[str, ParameterGraph]]:
    """Weights in which neurons of one side trade places, against all else that holds these."""
    spec = graph.spec
    movable = {axis.name for axis in spec.symmetries.permutations}
    held = Counter(d.axis for edges in spec.edge_sets for d in edges.dims if edges.tied_to is None)
    for edges in spec.edge_sets:
        if edges.kind != "weight" or edges.tied_to is not None:
            continue
        for place, dim in enumerate(edges.dims):
            if dim.axis in movable and dim.size > 1 and held[dim.axis] > 1:
                values = {n: v.clone() for n, v in graph.values.items() if n == edges.parameter}
                moved = graph.replace(values)
                block = moved.block(edges)
                block.copy_(graph.block(edges).flip(1 + place))
                yield f"dim {place} of {edges.name}", moved


def _with(values: Tensor, place: tuple[int | slice, ...], number: Tensor | float) -> Tensor:
    result = values.clone()
    result[place[: values.dim()]] = number  # of a weight that is a vector, its first entry
    return result


DAMAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "all 0": torch.zeros_like,
    "all 1e-15": lambda values: values * 1e-15,
    "one 1e-15": lambda values: _with(values, (slice(None), 0, 0), 1e-15),  # reciprocal: 1e15
    "large": lambda values: values * 1e4,
    "a dead neuron": lambda values: _with(values, (slice(None), 0), 0.0),
    "equal neurons": lambda values: _with(values, (slice(None), -1), values[:, 0]),
}
"""Weights at which published implementations break."""
