# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Head to head: metanetworks and neural functional networks
#
# Two families read weights: graph metanetworks pass messages along a network's parameters, parameter-sharing *neural
# functional networks* (NFNs) are layers whose weights are tied by its symmetries. Here both read the same networks in
# the same minibatches; then we move the networks by symmetries that some of them know and others do not.
# Everything is tiny, so that it runs in about a minute: the tables that mean something are in `benchmarks/README.md`,
# what each method assumes is in `docs/baselines.md`.

# %%
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch
from torch import nn

import baselines
import converters
import gmn
from gmn import registry, tasks, zoo
from gmn.augment import Rescaled
from gmn.train import Recipe, predict, train

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## The same networks, the same minibatches
#
# CNNs with ReLU and with tanh, trained on scikit-learn's digits; the task is to predict their test accuracy. One row a
# model: what it reaches, and what a training step costs. A model that cannot read the networks is left out, and the
# caption says why: Transformer-NFN reads attention, and there is none.

# %%
folder = Path(mkdtemp())
population = zoo.build(
    "cnn-digits", size=150, seed=0, out=folder / "cnns", workers=1, progress=False
)
MODELS = ["dual-gmn-weights", "nfn-hnp", "monomial-nfn", "magep-nfn"]
gmn.compare(
    partial(tasks.task_of, folder / "cnns"),
    [*MODELS, "transformer-nfn", "layer-statistics"],
    seeds=1,
    recipe=Recipe(epochs=6),
    workers=1,
    progress=False,
)

# %% [markdown]
# `MFLOP/network` and `saved MiB` (what a step of 32 keeps for its backward pass) are the same on every machine,
# `ms/network` and `peak MiB` are not. A hundred networks, one seed and six epochs do not rank models.
#
# ## Who knows which symmetry?
#
# The certified group of a ReLU network holds permutations and positive scales of its hidden channels. Nothing that it
# does changes a function. How far does it change an answer? The largest relative change under random elements, in
# float64:

# %%
relu = population.indices("train", "cnn-relu")
graph = population.graph(relu[:4]).to(dtype=torch.float64)
for name in MODELS:
    torch.manual_seed(0)
    model = registry.find(name)(graph.spec, 1).double()
    changes = []
    for kinds in ({"permutations"}, {"scalings"}):
        element = gmn.symmetry.sample(
            graph.spec, torch.Generator().manual_seed(0), symmetries=kinds
        )
        with torch.no_grad():
            moved, still = model(element.act_on_graph(graph)), model(graph)
        changes.append(gmn.testing.relative_error(moved, still))
    print(f"{name:18} permutations {changes[0]:.0e}   scales {changes[1]:.0e}")

# %% [markdown]
# ## What that means for predictions
#
# The test networks again, with every hidden channel rescaled by up to 10, 100, … : the same functions, the same
# accuracies. Models that know about scales do not notice. The others were trained on weights as optimisers leave them,
# and lose their way.

# %%
task = tasks.AccuracyPrediction(population)
reaches = (1, 10, 100, 1000, 10000)
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for name in MODELS:
    torch.manual_seed(0)
    model = registry.find(name)(task.split("train")[0].graph.spec, task.outputs)
    train(model, task, Recipe(epochs=6))
    taus = []
    for reach in reaches:
        moved = [
            tasks.Batch(Rescaled(reach)(part.graph, torch.Generator().manual_seed(1)), part.target)
            for part in task.split("test")
        ]
        taus.append(task.metrics(*predict(model, task, moved))["tau"])
    axes.plot([f"{reach:,}" for reach in reaches], taus, marker="o", label=name)
axes.set(xlabel="scales of hidden channels, up to", ylabel="Kendall τ, test networks")
legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)

# %% [markdown]
# ## What an NFN sees
#
# NFNs see a list of weights and biases. The adapter makes it and takes it back, bit for bit.

# %%
features = baselines.adapter.to_features(graph)
print([tuple(weight.shape) for weight in features.weights], "(networks, out, in, taps)")
again = baselines.adapter.from_features(graph, features)
print(all(torch.equal(again.values[name], graph.values[name]) for name in graph.values))

# %% [markdown]
# A list has no branches: a residual network is refused, with the reason and with what reads it instead. UNF, made from
# the network's own permutation group, does.


# %%
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + torch.relu(self.inner(x)))


residual = converters.to_graph(Residual(), (torch.zeros(3, 4),))
try:
    baselines.NFN(residual.spec)
except baselines.UnsupportedArchitecture as error:
    print(error)
print(registry.find("unf")(residual.spec, 1)(residual))
