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
# # Distances between networks: a layer is a set of neurons
#
# Hidden neurons have no order, so two networks should be compared as sets of neurons. `gmn.transport` does this by optimal
# transport: sliced (SW), tree-sliced (Db-TSW) or exact (assignment). Below: distances between networks, metrics of generated
# networks, a gradient flow, and an autoencoder that is trained with such a distance.
#
# Some populations come from programs in `examples/`: run this in a clone of the repository, installed with `pip install -e .`

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch

import converters
from examples.shallow_sirens import fitted, shuffled
from gmn import ParameterGraph, symmetry, zoo
from gmn.nn import DualGMN, InvariantHead
from gmn.tasks import Autoencoding
from gmn.train import Recipe, train
from gmn.transport import (
    NetworkDistance,
    network_distance,
    sliced_wasserstein,
    tree_sliced_wasserstein,
    zoo_metrics,
)
from gmn.zoo import images

torch.manual_seed(0)
torch.set_num_threads(1)
folder = Path(mkdtemp())

# %% [markdown]
# ## How far apart are two networks?
#
# A small population: MLPs with one hidden layer that learn scikit-learn's digits, each by a recipe of its own; of every training
# run five checkpoints are kept. (The builder also makes deeper ones, which are left aside.)

# %%
options = zoo.Options(checkpoints=5)
zoo.build(
    "mlp-digits", size=300, seed=0, out=folder / "mlps", options=options, workers=1, progress=False
)
population = zoo.open(folder / "mlps")
chosen = population.indices(architecture="mlp-64-depth1")
networks = population.graph(chosen)
networks

# %% [markdown]
# Copies whose hidden neurons come in another order are the same networks. Weight by weight (`unaligned`) they look as different
# as strangers; as sets of neurons their distance is zero.

# %%
element = symmetry.sample(networks.spec, torch.Generator().manual_seed(0), scalings=False)
copies = element.act_on_graph(networks)
for kind in ("unaligned", "sliced", "tree", "assignment"):
    to_copy = network_distance(networks, copies, kind=kind).mean()
    to_other = network_distance(networks, networks[torch.arange(len(networks)).roll(5)], kind=kind)
    print(f"{kind:11s} to copies {to_copy:.4f}, to networks of another run {to_other.mean():.4f}")

# %% [markdown]
# All distances at once. The five checkpoints of a run lie in a row: little squares along the diagonal. On the right the same
# distances as a map (classical scaling): every run is a line, and ends at its most accurate network.

# %%
matrix = NetworkDistance().matrix(networks).double()
middle = torch.eye(len(matrix)).double() - 1 / len(matrix)
values, vectors = torch.linalg.eigh(-middle @ matrix.square() @ middle / 2)
places = vectors[:, -2:].flip(1) * values[-2:].flip(0).sqrt()
accuracy = population.labels("test_accuracy", chosen)

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
left.imshow(matrix[:60, :60], cmap="viridis")
left.set_title("distances of the first twelve runs", fontsize=10)
for run in places.view(-1, 5, 2):
    right.plot(*run.T, color="0.8", linewidth=0.8, zorder=1)
shown = right.scatter(*places.T, c=accuracy, s=14, cmap="viridis", zorder=2)
figure.colorbar(shown, label="test accuracy")
right.set_title("a map of all runs", fontsize=10)

# %% [markdown]
# ## Are generated networks any good?
#
# Another population: SIRENs with one hidden layer of 128 neurons, each of which holds the image of a digit. Its set of neurons is
# all there is to such a network. They all began at one initialisation; then the neurons of each were put in an order of its own.

# %%
pixels, _ = images.load_all("digits")
inrs, psnr = fitted(pixels[:400], progress=False)
inrs = shuffled(inrs)
print(f"median PSNR {psnr.median():.1f} dB")

# %% [markdown]
# `zoo_metrics` compares networks with real ones that were held out: MMD, coverage, and `accuracy`, how well the nearest neighbour
# tells generated from real (0.5 is best, 1 means told apart). And it asks whether they are more than copies of what was learned
# from: `novelty` is 0 for copies, about 1 for networks as new as held-out ones.

# %%
training, reference, further = inrs[:200], inrs[200:300], inrs[300:]
samples = {
    n: v.mean(0) + v.std(0) * torch.randn(100, *v.shape[1:]) for n, v in training.values.items()
}
for name, generated in {
    "real, held out": further,
    "reordered copies": shuffled(training[:100], seed=1),
    "a normal distribution per weight": inrs[:100].replace(samples),
}.items():
    found = zoo_metrics(generated, reference, training, NetworkDistance(lines=20))
    print(name, {metric: round(value, 3) for metric, value in vars(found).items()})

# %% [markdown]
# `python -m examples.inr_generator` trains generators of these networks and judges them so.

# %% [markdown]
# ## Points that flow
#
# Distances are differentiable: points descend the squared sliced distance (above), or the tree-sliced one (below), to 25 clusters.
# The latter is of order 1: its gradient does not fade near the goal, so the step size has to. With one step size for both it
# arrives first; `python -m examples.gradient_flows` gives each method the one that suits it.

# %%
goal = torch.cartesian_prod(torch.linspace(-2, 2, 5), torch.linspace(-2, 2, 5)).repeat(8, 1)
goal = goal + 0.05 * torch.randn_like(goal)
distances = {
    "sliced": lambda x, lines: sliced_wasserstein(x, goal, root=False, generator=lines),
    "tree": lambda x, lines: tree_sliced_wasserstein(x, goal, generator=lines),
}
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
for row, (name, distance) in zip(axes, distances.items(), strict=True):
    points = (0.3 * torch.randn(200, 2)).requires_grad_()
    optimiser = torch.optim.Adam([points], lr=0.05)
    fading = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    lines = torch.Generator().manual_seed(0)
    for step in range(301):
        if step % 100 == 0:
            axis = row[step // 100]
            axis.plot(*goal.T, ".", color="0.8", markersize=3)
            axis.plot(*points.detach().T, ".", color="C0", markersize=3)
            axis.set(xticks=[], yticks=[], title=f"{name}, step {step}")
        optimiser.zero_grad()
        distance(points, lines).backward()
        optimiser.step()
        fading.step()

# %% [markdown]
# ## An autoencoder that compares sets of neurons
#
# A family of small networks 2-10-1, a plane in weight space, their neurons in random order again. A metanetwork turns each into 8
# numbers, an MLP turns these into weights. In which order should it write the neurons? Any will do, so the error of the `weights`
# as they stand is the wrong loss. `set` first assigns neurons to neurons; `sliced` and `tree` compare the two sets along lines;
# `function` compares what networks compute. All are judged by that.

# %%
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(2, 10), torch.nn.Tanh(), torch.nn.Linear(10, 1))
spec = converters.trace(module, (torch.zeros(1, 2),))
corners = {e.name: torch.randn(3, *e.shape) for e in spec.entries}
places = torch.cat([torch.ones(200, 1), 2 * torch.rand(200, 2) - 1], dim=1)
plane = ParameterGraph(
    spec, {name: torch.tensordot(places, corner, 1) for name, corner in corners.items()}
)
plane = shuffled(plane)

splits = ["train"] * 160 + ["val"] * 20 + ["test"] * 20
rows = [{"id": f"{number:03d}", "split": split} for number, split in enumerate(splits)]
with zoo.ZooWriter(folder / "plane", "plane", 200, 0, {}) as writer:
    writer.write_shard(0, "mlp", spec, plane.values, rows)
    writer.finish(1, {})

shown = {}
for loss in ("weights", "set", "sliced", "tree", "function"):
    task = Autoencoding(zoo.open(folder / "plane"), latent=8, loss=loss, height=12, width=12)
    torch.manual_seed(0)
    model = task.build(lambda spec, n: DualGMN(16, 1, InvariantHead(n)), spec)
    result = train(model, task, Recipe(epochs=20, batch_size=16, learning_rate=5e-3))
    shown[loss] = result.prediction
    print(f"{loss:8s} R² {result.metrics['r2']:.3f}")

# %% [markdown]
# What test networks compute on a square, and their reconstructions. With one hidden layer the set of neurons *is* the network.
# With more, the clouds of two layers do not say which neuron of one goes with which of the other, so that `sliced` alone is not
# enough; `sliced+function` is a loss, too. And lines see a large set coarsely: of 128 neurons in 4 dimensions, assigning them
# learns much more. `docs/transport.md` has the figures.

# %%
figure, axes = plt.subplots(len(shown) + 1, 10, figsize=(8, 4.8))
for row, (name, pictures) in zip(axes, {"original": result.target, **shown}.items(), strict=True):
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, picture, original in zip(row, pictures, result.target, strict=False):
        low, high = original.aminmax()
        axis.imshow(picture[0], cmap="RdBu", vmin=low, vmax=high)
        axis.set(xticks=[], yticks=[])
