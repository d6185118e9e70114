"""The colours of one photograph moved to those of another, by optimal transport.

Both photographs are reduced to 1,000 colours by k-means. The colours of the first are points that
flow to those of the second by Adam on SW_2 or Db-TSW, or go there at once by exact assignment; each
pixel then moves with its colour.

Judged by the exact W_2 that is left between the colours, by the distance that colours moved (no
less than the W_2 at first less what is left of it; detours tear neighbouring colours apart, which
is seen as noise), and by the exact W_2 between 1,000 random pixels of the result and as many of the
second photograph. The learning rate of each method is tuned on a grid, with random lines of their
own, by the sum of the first two, what is left counted twice: to stay would else be as good as to
arrive.

The photographs come with scikit-image (pip install 'graph-metanetworks[examples]'): no network
connection is needed. Writes to --out: the result of each method, table.md, results.json,
colours.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage import data, io
from sklearn.cluster import MiniBatchKMeans
from torch import Generator, Tensor
from tqdm.auto import tqdm

from examples.flows import LINES, METHODS, Loss, flow
from gmn.transport import assigned_wasserstein, assignment, sliced_wasserstein

PHOTOGRAPHS: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "astronaut": data.astronaut,
    "chelsea": data.chelsea,
    "coffee": data.coffee,
}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
FITTED = 50_000  # pixels at most that k-means sees
SAMPLE = 1000  # pixels that results are judged by
TUNING_SEED = 1000
LABELS = {
    "db-tsw": "Db-TSW",
    "sw2": "SW₂²",
    "sw2-weighted": "SW₂², colours weighted by pixels",
    "assignment": "exact assignment",
}
EXAMPLES = """examples:
  python -m examples.colour_transfer                                  # a coffee in a cat's colours
  python -m examples.colour_transfer --source astronaut --palette my-photograph.jpg
"""


@dataclass(frozen=True)
class Palette:
    """A photograph and its colours.

    Attributes:
        pixels: in [0, 1], shape (height, width, 3).
        colours: shape (colours, 3).
        nearest: the number of each pixel's colour, shape (height, width).
    """

    pixels: Tensor
    colours: Tensor
    nearest: Tensor

    @classmethod
    def of(cls, pixels: Tensor, colours: int, seed: int) -> Palette:
        """The colours of a photograph by k-means."""
        flat = pixels.flatten(0, 1)
        some = torch.randperm(len(flat), generator=Generator().manual_seed(seed))[:FITTED]
        means = MiniBatchKMeans(colours, n_init=1, batch_size=4096, random_state=seed)
        means.fit(flat[some].numpy())
        nearest = torch.from_numpy(means.predict(flat.numpy())).long()
        found = torch.from_numpy(means.cluster_centers_).float()
        return cls(pixels, found, nearest.view(pixels.shape[:2]))

    def shares(self) -> Tensor:
        """The share of the pixels that have each colour."""
        counts = self.nearest.flatten().bincount(minlength=len(self.colours))
        return counts / counts.sum()

    def recoloured(self, colours: Tensor) -> Tensor:
        """The photograph with its colours moved, within [0, 1]; details within a colour stay."""
        return (self.pixels + (colours - self.colours)[self.nearest]).clamp(0, 1)


@dataclass(frozen=True)
class Result:
    """What became of a photograph.

    Attributes:
        method: its label.
        rate: the learning rate, if there is one.
        colours: exact W_2 that is left between the colours and those wanted.
        moved: root mean square of the distances that colours moved.
        pixels: exact W_2 between random pixels and those wanted.
    """

    method: str
    rate: float | None
    colours: float
    moved: float
    pixels: float


def photograph(name: str) -> Tensor:
    """A photograph of scikit-image or from a file, in [0, 1], shape (height, width, 3).

    Raises:
        SystemExit: if there is none, or it has no colours.
    """
    if name not in PHOTOGRAPHS and not Path(name).is_file():
        raise SystemExit(f"{name} is neither a file nor one of {', '.join(PHOTOGRAPHS)}")
    pixels = PHOTOGRAPHS[name]() if name in PHOTOGRAPHS else io.imread(name)
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
        raise SystemExit(f"{name} holds {pixels.dtype} of shape {pixels.shape}: RGB is needed")
    return torch.from_numpy(pixels[:, :, :3].copy()).float() / 255


def moved(
    start: Tensor,  # shape: (n, 3)
    goal: Tensor,  # shape: (n, 3)
    loss: Loss,
    rates: tuple[float, ...],
    steps: int,
    seed: int,
) -> Tensor:
    """Where colours are after a flow with each rate, shape (rates, n, 3)."""
    start, goal = (cloud.expand(len(rates), -1, -1) for cloud in (start, goal))
    path = flow(start, goal, loss, rates, steps, Generator().manual_seed(seed))
    for points in tqdm(path, "flow", steps + 1, leave=False, unit="step"):
        last = points
    return last


def tuned(start: Tensor, goal: Tensor, loss: Loss, steps: int) -> float:
    """The learning rate that leaves and moves least: twice the W_2 left and the distance moved."""
    ends = moved(start, goal, loss, RATES, steps, TUNING_SEED)
    left = assigned_wasserstein(ends, goal.expand(ends.shape))
    return RATES[int((2 * left + way(start.expand(ends.shape), ends)).argmin())]


def way(start: Tensor, end: Tensor) -> Tensor:
    """Root mean square of the distances between points of one number, shape (...)."""
    return (end - start).square().sum(-1).mean(-1).sqrt()


def transferred(
    source: Palette, palette: Palette, steps: int, seed: int
) -> dict[str, tuple[Tensor, float | None]]:
    """By method, the colours of the source after the flow, and its learning rate."""
    start, goal = source.colours, palette.colours
    weights = source.shares(), palette.shares()

    def weighted(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        return sliced_wasserstein(
            x, y, projections=LINES, weights=weights, root=False, generator=generator
        )

    found: dict[str, tuple[Tensor, float | None]] = {}
    for name in ("db-tsw", "sw2"):
        loss = METHODS[name].loss
        rate = tuned(start, goal, loss, steps)
        found[name] = moved(start, goal, loss, (rate,), steps, seed)[0], rate
    found["sw2-weighted"] = moved(start, goal, weighted, (rate,), steps, seed)[0], rate
    found["assignment"] = goal[assignment(start, goal)], None
    return found


def sample(pixels: Tensor, seed: int) -> Tensor:
    """Random pixels, shape (1000, 3)."""
    flat = pixels.flatten(0, 1)
    return flat[torch.randint(len(flat), (SAMPLE,), generator=Generator().manual_seed(seed))]


def judged(
    label: str, rate: float | None, colours: Tensor, photographs: tuple[Palette, Palette], seed: int
) -> Result:
    """How far colours and pixels are from those of the palette, and how far they went."""
    source, palette = photographs
    pixels = sample(source.recoloured(colours), 2 * seed + 1)
    return Result(
        method=label,
        rate=rate,
        colours=float(assigned_wasserstein(colours, palette.colours)),
        moved=float(way(source.colours, colours)),
        pixels=float(assigned_wasserstein(pixels, sample(palette.pixels, 2 * seed))),
    )


def table(results: list[Result]) -> str:
    """In Markdown."""
    lines = [
        "| | rate | W₂ of the colours | colours moved by | W₂ of pixels |",
        "|" + "---|" * 5,
    ]
    for result in results:
        rate = "" if result.rate is None else f"{result.rate:g}"
        lines.append(
            f"| {result.method} | {rate} | {result.colours:.4f} | {result.moved:.4f} | "
            f"{result.pixels:.4f} |"
        )
    return "\n".join(lines)


def drawn(pictures: dict[str, Tensor]) -> Figure:
    """Pictures in two rows with their titles."""
    columns = -(-len(pictures) // 2)
    figure, grid = plt.subplots(2, columns, figsize=(2.9 * columns, 4.4), layout="constrained")
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, (title, pixels) in zip(grid.ravel(), pictures.items(), strict=False):
        axes.imshow(pixels.numpy())
        axes.set_title(title, fontsize=9)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Transfers colours by all methods, prints a table and draws the results."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.colour_transfer",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(PHOTOGRAPHS)
    parser.add_argument("--source", default="coffee", help=f"{names}, or a file")
    parser.add_argument("--palette", default="chelsea", help=f"{names}, or a file")
    parser.add_argument("--colours", type=int, default=1000, help="by k-means (default: 1000)")
    parser.add_argument("--steps", type=int, default=500, help="of Adam (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of k-means and random lines")
    parser.add_argument("--out", type=Path, default=Path("runs/colour-transfer"), help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)

    source, palette = (
        Palette.of(photograph(name), options.colours, options.seed)
        for name in tqdm((options.source, options.palette), "colours", unit="photograph")
    )
    pictures = {options.source: source.pixels, options.palette: palette.pixels}
    both = source, palette
    results = [judged("before", None, source.colours, both, options.seed)]
    for name, (colours, rate) in transferred(*both, options.steps, options.seed).items():
        pictures[LABELS[name]] = pixels = source.recoloured(colours)
        results.append(judged(LABELS[name], rate, colours, both, options.seed))
        file = options.out / f"{name}.png"
        io.imsave(file, (pixels * 255).round().byte().numpy(), check_contrast=False)
    floor = sample(palette.pixels, 2 * options.seed + 1), sample(palette.pixels, 2 * options.seed)
    text = (
        f"{table(results)}\n\nW₂ between two samples of the pixels of {options.palette}: "
        f"{float(assigned_wasserstein(*floor)):.4f}"
    )
    (options.out / "table.md").write_text(text + "\n")
    (options.out / "results.json").write_text(json.dumps([asdict(each) for each in results]))
    drawn(pictures).savefig(options.out / "colours.png", dpi=70)
    print(text)


if __name__ == "__main__":
    main()
