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
# # Winning tickets: which weights of an initialisation are worth training?
#
# Iterative magnitude pruning (Frankle & Carbin, 2019) trains a network, prunes its smallest weights, rewinds the others to
# where they started, and begins again. What is left, the *winning ticket*, learns from the old initialisation almost as
# well as the whole network; a random mask of the same size does not. Finding it takes ten trainings. Here a metanetwork
# reads an initialisation and says at once which weights to keep.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch

from gmn import zoo
from gmn.nn import DualGMN, Probes
from gmn.tasks import WinningTickets
from gmn.train import Recipe, train

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## A population of initialisations and their tickets
#
# Networks 64-32-32-10 for scikit-learn's digits, each with its own initialisation; beside each lies the mask of its ticket.
# The card says what training reaches on average: without pruning, and under three masks that keep 225 of 3,392 weights.

# %%
population = zoo.build(
    "tickets-digits", size=100, seed=0, out=Path(mkdtemp()) / "tickets", workers=1, progress=False
)
population.manifest["card"]

# %% [markdown]
# Hidden neurons have no order, but pixels have a place. How often do tickets keep the weights of each pixel? Hardly ever
# where no digit shows anything. Beside it, the pixels that four single neurons of one ticket read.

# %%
masks = population.extra("mask", population.indices())["layer1.weight"].float()
busiest = masks[0].sum(1).argsort(descending=True)[:4]
pictures = [masks.mean((0, 1)), *masks[0, busiest]]
figure, axes = plt.subplots(1, 5, figsize=(10, 2.2), layout="constrained")
for axis, picture in zip(axes, pictures, strict=True):
    axis.imshow(picture.view(8, 8), cmap="viridis")
    axis.set_axis_off()
axes[0].set_title("share kept, all tickets", fontsize=9)
for number, axis in enumerate(axes[1:], start=1):
    axis.set_title(f"neuron {number} of one ticket", fontsize=9)

# %% [markdown]
# ## Learning to see them
#
# The metanetwork edits an initialisation, and the mask keeps the weights that are largest after the edit. Untrained, it
# changes next to nothing: that is magnitude pruning at initialisation, where learning starts. Its probes are inputs that it
# learns: what it shows to the networks. Seventy networks are few; with a thousand it goes further.

# %%
task = WinningTickets(population)
(part,) = task.split("test")
model = DualGMN(64, 2, task.outputs, Probes.like(part.graph.spec, 64))
result = train(model, task, Recipe(epochs=20, batch_size=8, learning_rate=3e-3))
result.metrics

# %% [markdown]
# `overlap` is the share of the ticket's weights that were found. What counts is what networks reach under the mask, when they
# are trained from their initialisation. The baselines need no model: `mean ticket` knows which pixels and classes tickets
# keep on average, and multiplied with magnitudes it is the best that can be said without looking at more than one weight.

# %%
bars = {name: task.test_metrics(found, part.target) for name, found in task.baselines().items()}
bars["DualGMN"] = result.metrics
order = sorted(bars, key=lambda name: bars[name]["accuracy"])
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
colours = ["C1" if name == "DualGMN" else "0.75" for name in order]
axis.barh(order, [bars[name]["accuracy"] for name in order], color=colours)
axis.set_xlabel("test accuracy after training under the mask")
axis.grid(axis="x", alpha=0.3)

# %% [markdown]
# On networks that it never saw, the learnt mask beats the magnitudes:

# %%
bars["DualGMN"]["accuracy"], bars["magnitude"]["accuracy"]

# %% [markdown]
# From the command line: `gmn zoo build tickets-digits --size 1000 --out runs/tickets`, then
# `gmn train runs/tickets -m dual-gmn --out runs/model` or `gmn compare runs/tickets -m dual-gmn -m nfn-hnp --out runs/table`.
