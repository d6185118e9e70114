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
# # A first metanetwork: convert, train, compare
#
# A *metanetwork* is a neural network whose input is another network. This notebook turns a network into a parameter
# graph, looks at its symmetries, trains a graph metanetwork to predict the test accuracy of small CNNs from their
# weights, and compares it with parameter-sharing NFNs. It takes about two minutes on two cores.

# %%
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import nn

import converters
import gmn
from gmn import zoo
from gmn.draw import draw
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe, train

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## Convert
#
# `converters.trace` needs the module and example inputs. The result holds no weights: it is the architecture as a value.

# %%
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1), nn.Tanh(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
)  # fmt: skip
inputs = (torch.randn(4, 1, 14, 14),)
spec = converters.trace(model, inputs)
spec

# %% [markdown]
# Two layers of eight channels may be permuted (`S8`). Before the batch normalisation a channel may be rescaled, if its
# running statistics follow; between normalisation and ReLU there is another positive scale; tanh lets signs pass. None
# of this was written by hand for these layers: every operation states how units must balance, and the equations are
# solved. `verify` checks it on the real module.

# %%
print(converters.verify(model, inputs, spec))

# %%
draw(spec)

# %% [markdown]
# A symmetry moves every weight and leaves the function as it was.

# %%
model = model.double().eval()
image = torch.randn(1, 1, 14, 14).double()
before = model(image).detach()
element = gmn.symmetry.sample(spec, torch.Generator().manual_seed(1))
moved = element.act(model.state_dict())
print("largest change of a weight:", (moved["0.weight"] - model[0].weight).abs().max().item())
model.load_state_dict(moved)
print("largest change of an output:", (model(image) - before).abs().max().item())

# %% [markdown]
# ## A population
#
# `zoo.build` trains many networks at once; this small one is built on scikit-learn's digits. `make demo` uses 1,200
# networks on MNIST.

# %%
folder = Path(mkdtemp())
population = zoo.build("cnn-digits", size=150, seed=0, out=folder, workers=1, progress=False)
task = AccuracyPrediction(population)
graph = task.split("train")[0].graph
print(graph)
population.labels("test_accuracy").histogram(bins=5)

# %% [markdown]
# ## Train
#
# One network reads all of them, whatever their architecture; its answer does not depend on the order of their neurons.

# %%
net = gmn.nn.GMN(hidden=16, depth=2, head=gmn.nn.InvariantHead(task.outputs))
gmn.testing.assert_invariant(net, graph[:4], tolerance=1e-4)
result = train(net, task, Recipe(epochs=20, learning_rate=4e-3))
print(result.metrics)

# %% [markdown]
# ## Compare
#
# The same task, the same minibatches, several models: `gmn.compare` takes names of installed models, or factories.

# %%
comparison = gmn.compare(
    partial(AccuracyPrediction.open, folder),
    ["gmn", "nfn-hnp", "layer-statistics"],
    seeds=1,
    recipe=Recipe(epochs=5),
    workers=1,
    progress=False,
)
comparison

# %%
from gmn.comparison.report import scatter_plot

scatter_plot(comparison)
