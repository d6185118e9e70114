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
# # Metanetworks: what they ask, what they cost, what they read
#
# `DualGMN` reads networks through products with their own weights and, if it is given *probes*, through their answers to
# questions that it learns. Here it predicts how good small CNNs are and which digits INRs show, beside a published
# metanetwork and plain probing; then we look at its questions and at the weights it read, and let it edit networks.
# Everything is tiny, so that it runs in about a minute: the tables that mean something are in `benchmarks/README.md`.
# What each metanetwork is invariant to, and when to use which, is in `docs/metanetworks.md`.

# %%
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch

import converters
import gmn
from gmn import explain, registry, tasks, zoo
from gmn.draw import draw, heat_map
from gmn.nn import DualGMN, EditHead, InvariantHead, Probes
from gmn.train import Recipe, train
from gmn.zoo.images import pixel_grid

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## How good is this CNN?
#
# A population of CNNs, trained on scikit-learn's digits, and three models that predict their test accuracy: the table
# has what they reach and what a training step costs. `gmn` is the graph metanetwork of Lim et al. (ICLR 2024);
# `probe-net` sees nothing but outputs for learned inputs.

# %%
folder = Path(mkdtemp())
population = zoo.build(
    "cnn-digits", size=100, seed=0, out=folder / "cnns", workers=1, progress=False
)
comparison = gmn.compare(
    partial(tasks.task_of, folder / "cnns"),
    ["dual-gmn", "probe-net", "gmn"],
    seeds=1,
    recipe=Recipe(epochs=8),
    workers=1,
    progress=False,
)
comparison

# %% [markdown]
# How to read it: `ms/network` and `peak MiB` belong to this machine and to what else it was doing. `MFLOP/network` counts
# matrix products, `saved MiB` what a step of 32 networks keeps for its backward pass: these are the same everywhere.
# `probes` is how many inputs of its own a model runs each network on. One seed, so few networks and so few steps do not
# rank models: `gmn`, which has hardly begun to learn here, reaches a τ of 0.80 with 810 networks and 25 epochs
# (`benchmarks/README.md`).

# %% [markdown]
# ## What it asks
#
# Probes are inputs of the networks, learned with everything else. Above those it starts with, below those it ends with.

# %%
task = tasks.AccuracyPrediction(population)
graph = task.split("train")[0].graph
torch.manual_seed(0)
probes = Probes(*(torch.rand(16, *given.shape) for given in graph.spec.program.inputs))
net = DualGMN(hidden=32, depth=2, head=InvariantHead(1), probes=probes)
before = probes.inputs()[0].detach().clone()
print(train(net, task, Recipe(epochs=10)).metrics)
after = probes.inputs()[0].detach()

figure, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for column in range(8):
    for row, shown in enumerate((before, after)):
        axes[row, column].imshow(shown[column, 0, 0], cmap="gray")
        axes[row, column].axis("off")

# %% [markdown]
# ## What it read
#
# Gradient times value says, to first order, what the answer would lose without each weight; the picture has each edge
# set's share of it. This is about one network of the test split.

# %%
test = task.split("test")[0]
one = test.graph[:1]
with torch.no_grad():
    print(f"predicted {task.prediction(net(one)).item():.2f}, true {test.target[0].item():.2f}")
found = explain.saliency(net, one)
shares = {name: float(share[0]) for name, share in explain.shares(found).items()}
draw(one.spec, weights=shares)

# %% [markdown]
# The edge set with the largest share, weight by weight: kernels are the cells of the grid, targets down, sources across.

# %%
most = max((e for e in one.spec.edge_sets if not e.diagonal), key=lambda e: shares[e.name])
print(most.name)
heat_map(found, most.name)

# %% [markdown]
# ## Which digit does this INR show?
#
# SIRENs hold images of digits as functions from coordinates to brightness. Here the probes start at the pixels, and
# answers of all neurons count, not only those of the output. A comparison takes factories, too: functions of a spec and
# a number of outputs. Again, this is too little data and training for `gmn`.


# %%
def asking_pixels(spec: gmn.GraphSpec, outputs: int) -> DualGMN:
    return DualGMN(32, 2, InvariantHead(outputs), Probes(pixel_grid(8, 8).unsqueeze(1)))


zoo.build("inr-digits", size=400, seed=0, out=folder / "inrs", workers=1, progress=False)
gmn.compare(
    partial(tasks.task_of, folder / "inrs"),
    {"dual-gmn, pixels": asking_pixels, "gmn": registry.find("gmn")},
    seeds=1,
    recipe=Recipe(epochs=8),
    workers=1,
    progress=False,
)

# %% [markdown]
# The answer does not depend on the order of neurons, on their signs or on the phases of their sines: largest relative
# change under random elements of the group, in float32.

# %%
digits = tasks.task_of(folder / "inrs")
inrs = digits.split("train")[0].graph
torch.manual_seed(0)
reader = asking_pixels(inrs.spec, digits.outputs)
print(train(reader, digits, Recipe(epochs=8)).metrics)
gmn.testing.assert_invariant(reader, inrs[:4], scalings=True, tolerance=1e-4)

# %% [markdown]
# ## Networks in, networks out
#
# With an `EditHead` the answer is a network per network; what to train it for is up to the loss on what the edited
# network computes, which `program.observe` computes for all networks at once. Here: the image at half its brightness, an
# easy edit (to halve the last layer would do). Harder ones, such as the negative, take longer than this.

# %%
coordinates = pixel_grid(8, 8).unsqueeze(1)


def images(networks: gmn.ParameterGraph) -> torch.Tensor:
    return networks.spec.program.observe(networks.values, [coordinates])[-1].flatten(1)


torch.manual_seed(0)
editor = DualGMN(hidden=32, depth=2, head=EditHead())
optimiser = torch.optim.AdamW(editor.parameters(), lr=1e-2)
for _ in range(100):
    some = inrs[torch.randint(len(inrs), (32,))]
    loss = (images(editor(some)) - images(some) / 2).square().mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
    optimiser.step()

# %% [markdown]
# Networks that it has not seen: how far they are from what is asked for, beside the best that the same image for all
# could do. Four of them, above as they are, below edited.

# %%
unseen = digits.split("test")[0].graph
with torch.no_grad():
    edited = editor(unseen)
wanted = images(unseen) / 2
compared = {"as they are": images(unseen), "one for all": wanted.mean(0), "edited": images(edited)}
for name, found in compared.items():
    print(f"{name}: mean squared distance {(found - wanted).square().mean():.1e}")

figure, axes = plt.subplots(2, 4, figsize=(4, 2.1))
for row, networks in enumerate((unseen, edited)):
    for column in range(4):
        shown = images(networks)[column].reshape(8, 8)
        axes[row, column].imshow(shown, cmap="gray", vmin=0, vmax=1)
        axes[row, column].axis("off")

# %% [markdown]
# Edits move along with every symmetry: to move a network by an element of its group and edit it is to edit it and move
# the result. The largest relative difference, in float64, is

# %%
gmn.testing.assert_equivariant(editor.double(), unseen[:4].to(dtype=torch.float64), scalings=True)

# %% [markdown]
# ## A layer of your own
#
# What an edge carries and what a neuron makes of it, in a dozen lines; the rest of a metanetwork is there
# ([more](../docs/writing-a-layer.md)). It reads every architecture, and no permutation can change its answer.


# %%
class Layer(gmn.nn.MessagePassing):
    def __init__(self, hidden, edge_hidden):
        super().__init__(hidden, reduce=("mean", "max"))
        self.edge = torch.nn.Linear(edge_hidden, hidden)
        self.out = torch.nn.Linear(2 * hidden, hidden)

    def message(self, source, target, edge):
        return torch.relu(source - target + self.edge(edge))

    def update(self, nodes, messages):
        return nodes + self.out(messages)


cnns = tasks.task_of(folder / "cnns")
own = gmn.nn.MessagePassingNetwork([Layer(16, 8) for _ in range(3)], 16, 8, head=1)
print(gmn.train.train(own, cnns, Recipe(epochs=30, learning_rate=1e-2)))
print(own)
gmn.testing.assert_invariant(own.double(), cnns.split("test")[0].graph[:4].to(dtype=torch.float64))

# %% [markdown]
# ## Layers of PyTorch Geometric
#
# `to_pyg` gives one edge per parameter, with what the spec says about each neuron in `x` and types that mean the same
# in every architecture. So a stock network trains on a loader that mixes them: here CNNs, and perceptrons whose
# target is made up.

# %%
from torch_geometric.loader import DataLoader
from torch_geometric.nn.models import GIN
from torch_geometric.nn.pool import global_mean_pool

perceptron = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
other = gmn.ParameterGraph.from_state_dicts(
    converters.trace(perceptron, (torch.zeros(1, 4),)),
    [{k: scale * v for k, v in perceptron.state_dict().items()} for scale in (0.5, 1.0, 2.0)],
)
data = [graph.to_pyg("test_accuracy")[0] for graph in population.select(split="train")]
for scale, one in zip((0.5, 1.0, 2.0), other.to_pyg().to_data_list(), strict=True):
    one.y = torch.tensor([scale / 2])
    data.append(one)
stock = GIN(
    in_channels=data[0].num_node_features,
    hidden_channels=16,
    num_layers=2,
    out_channels=1,
    aggr="mean",
)
optimiser = torch.optim.Adam(stock.parameters(), 1e-2)
for epoch in range(3):
    total = 0.0
    for batch in DataLoader(data, batch_size=8, shuffle=True):
        optimiser.zero_grad()
        answer = global_mean_pool(stock(batch.x, batch.edge_index), batch.batch).squeeze(1)
        loss = (answer - batch.y).square().mean()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(batch.y) / len(data)
    print(f"epoch {epoch}: mean squared error {total:.3f}")

# %% [markdown]
# And back, to the bit, whatever the order of architectures:

# %%
for graph in gmn.ParameterGraph.from_pyg(next(iter(DataLoader(data[::-1], batch_size=len(data))))):
    print(graph)
