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
# # Tasks: edit an image by editing its network, read transformers, ask something of your own
#
# A task is a population, a loss and what to report; `gmn tasks` lists those that come along, `docs/tasks.md` says what each
# means. Populations and trainings here take seconds; the tables that mean something are in `benchmarks/README.md`.

# %%
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import gmn
from gmn import tasks, zoo
from gmn.nn import DualGMN, InvariantHead
from gmn.tasks import Task, labels
from gmn.train import Recipe, train

torch.set_num_threads(1)
folder = Path(mkdtemp())

# %% [markdown]
# ## Change an image by editing the network that holds it
#
# Each SIREN holds one image of a digit. The metanetwork sees the weights, nothing else, and answers with other weights; it is
# judged by the image that these render: here one of twice the contrast. With two copies it may answer with two networks,
# whose images are averaged. Errors mean something beside those of doing nothing, and of one image for all.

# %%
zoo.build("inr-digits", size=600, seed=0, out=folder / "inrs", workers=1, progress=False)
contrast = tasks.InrContrast(zoo.open(folder / "inrs"), copies=2)
torch.manual_seed(0)
editor = DualGMN(hidden=32, depth=2, head=contrast.outputs)
recipe = Recipe(epochs=12, batch_size=16, learning_rate=3e-3)
result = train(editor, contrast, recipe)
print(result.metrics)
for name, images in contrast.baselines().items():
    print(name, contrast.metrics(images, result.target))

# %% [markdown]
# Networks that it has not seen: their images, what the task asks for, and what the edited networks show. Harder edits
# (`inr-dilation`, `inr-erosion`) take thousands of networks and minutes.

# %%
before = contrast.baselines()["doing nothing"]
figure, axes = plt.subplots(3, 6, figsize=(6, 3.2))
for row, (name, images) in enumerate(
    {"before": before, "wanted": result.target, "after": result.prediction}.items()
):
    axes[row, 0].set_ylabel(name)
    for column in range(6):
        axes[row, column].imshow(images[column, 0], cmap="gray", vmin=0, vmax=1)
        axes[row, column].set(xticks=[], yticks=[])

# %% [markdown]
# ## Ask something of your own
#
# A class that says what is to be predicted. From the command line: `gmn train ZOO --task mine:Depth ...`, if this is in
# `mine.py`. Here the question is how deep an MLP is: one number per network, by the defaults judged by its squared error.


# %%
class Depth(Task):
    """How many layers a network has."""

    name = "depth"
    target = "number of layers"

    def targets(self, graph: gmn.ParameterGraph, indices: Tensor) -> Tensor:
        layers = sum(edges.kind == "weight" for edges in graph.spec.edge_sets)
        return torch.full((len(graph),), float(layers))


class LengthOfTraining(Task):
    """How long a network was trained, as the logarithm of its steps."""

    name = "length of training"
    target = "log of the number of steps"

    def targets(self, graph: gmn.ParameterGraph, indices: Tensor) -> Tensor:
        return labels.numbers(self.zoo, "steps", low=1)[indices].log()


zoo.build("mlp-digits", size=150, seed=0, out=folder / "mlps", workers=1, progress=False)
population = zoo.open(folder / "mlps")
print(population)
for task in (Depth(population), LengthOfTraining(population)):
    torch.manual_seed(0)
    reader = DualGMN(hidden=32, depth=2, head=InvariantHead(1))
    print(task.name, train(reader, task, Recipe(epochs=15, learning_rate=3e-3)).metrics)

# %% [markdown]
# Any task goes into a comparison. Models that cannot read networks of different depth are left out, and the table says why.

# %%
gmn.compare(
    partial(LengthOfTraining.open, folder / "mlps"),
    ["dual-gmn-weights", "layer-statistics", "flat-mlp"],
    seeds=1,
    recipe=Recipe(epochs=10, learning_rate=3e-3),
    workers=1,
    progress=False,
)

# %% [markdown]
# ## Transformers
#
# After the Small Transformer Zoo: two blocks of two heads, each trained by a recipe of its own. Two are enough to look at
# what is being read: in each head any change of basis between queries and keys, and between values and the output, leaves
# the function as it is.

# %%
zoo.build(
    "transformer-digits", size=2, seed=0, out=folder / "transformers", workers=1, progress=False
)
transformers = zoo.open(folder / "transformers")
graph = transformers.graph(range(2))
print(graph)
print([gauge.name for gauge in graph.spec.gauges])
print(transformers.labels("test_accuracy"))

# %% [markdown]
# So a metanetwork should answer alike for all of them. `DualGMN` does, to rounding.

# %%
torch.manual_seed(0)
reader = DualGMN(hidden=32, depth=2, head=InvariantHead(1)).double()
networks = graph.to(dtype=torch.float64)
moved = gmn.symmetry.sample(graph.spec, torch.Generator().manual_seed(0)).act_on_graph(networks)
with torch.no_grad():
    print(reader(networks).flatten())
    print(reader(moved).flatten())
