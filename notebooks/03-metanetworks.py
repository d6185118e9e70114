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

# %%
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch

import gmn
from gmn import explain, tasks, zoo
from gmn.draw import draw
from gmn.heat import heat_map
from gmn.nn import DualGMN, EditHead, InvariantHead, Probes
from gmn.train import Recipe, train
from gmn.zoo.fitting import pixel_grid

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
    "cnn-digits", size=150, seed=0, out=folder / "cnns", workers=1, progress=False
)
comparison = gmn.compare(
    partial(tasks.task_of, folder / "cnns"),
    ["dual-gmn", "probe-net", "gmn"],
    seeds=1,
    recipe=Recipe(epochs=6),
    workers=1,
    progress=False,
)
comparison

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
print(train(net, task, Recipe(epochs=12)).metrics)
after = probes.inputs()[0].detach()

figure, axes = plt.subplots(2, 8, figsize=(8, 2.1))
for column in range(8):
    for row, shown in enumerate((before, after)):
        axes[row, column].imshow(shown[column, 0, 0], cmap="gray")
        axes[row, column].axis("off")

# %% [markdown]
# ## What it read
#
# Gradient times value says what the answer would lose without each weight; the picture has each edge set's share of it.

# %%
one = task.split("test")[0].graph[:1]
found = explain.saliency(net, one)
shares = {name: float(share[0]) for name, share in explain.shares(found).items()}
draw(one.spec, weights=shares)

# %%
most = max((e for e in one.spec.edge_sets if not e.diagonal), key=lambda e: shares[e.name])
print(most.name)
heat_map(found, most.name)

# %% [markdown]
# ## Which digit does this INR show?
#
# SIRENs hold images of digits as functions from coordinates to brightness. Here the probes start at the pixels, and
# answers of all neurons count, not only those of the output.

# %%
zoo.build("inr-digits", size=600, seed=0, out=folder / "inrs", workers=1, progress=False)
digits = tasks.task_of(folder / "inrs")
inrs = digits.split("train")[0].graph
torch.manual_seed(0)
reader = DualGMN(32, 2, InvariantHead(digits.outputs), Probes(pixel_grid(8, 8).unsqueeze(1)))
print(train(reader, digits, Recipe(epochs=12)).metrics)

# %% [markdown]
# The answer does not depend on the order of neurons, on their signs or on the phases of their sines.

# %%
gmn.testing.assert_invariant(reader, inrs[:4], scalings=True, tolerance=1e-4)

# %% [markdown]
# ## Networks in, networks out
#
# With an `EditHead` the answer is a network per network. Edits move along with every symmetry: to permute neurons and
# edit is to edit and permute. What to train it for (dilate the image, say) is up to the loss on what the edited network
# computes; `program.observe` computes it for all networks at once.

# %%
torch.manual_seed(0)
editor = DualGMN(hidden=32, depth=2, head=EditHead()).double()
some = inrs[:4].to(dtype=torch.float64)
print("largest difference:", gmn.testing.assert_equivariant(editor, some, scalings=True))
edited = editor(some)

coordinates = pixel_grid(8, 8).unsqueeze(1).double()
figure, axes = plt.subplots(2, 4, figsize=(4, 2.1))
for row, networks in enumerate((some, edited)):
    shown = networks.spec.program.observe(networks.values, [coordinates])[-1].detach()
    for column in range(4):
        axes[row, column].imshow(shown[column].reshape(8, 8), cmap="gray")
        axes[row, column].axis("off")
