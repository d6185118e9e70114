"""Shows how far a training is: a bar over epochs, with the loss within one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from gmn.train.loop import Report, Running

FORM = (
    "{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total} epochs "
    "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


@contextmanager
def progress_bar(
    model: str, metric: str, epochs: int, done: int, shown: bool
) -> Iterator[tuple[Report, Running]]:
    """What a training calls after every epoch and after every step.

    Args:
        model: its name.
        metric: name of the metric that is reported after every epoch.
        epochs: of the whole training.
        done: epochs done before.
        shown: whether there is a bar to see.
    """
    bar = tqdm(
        desc=f"training {model}",
        total=epochs,
        initial=done,
        unit="epoch",
        bar_format=FORM,
        disable=not shown,
    )
    latest: dict[str, float] = {}

    def show(name: str, value: float, progress: float) -> None:
        latest[name] = value
        words = ", ".join(f"{name} {value:.4g}" for name, value in latest.items())
        bar.set_postfix_str(words, refresh=False)
        bar.update(progress - bar.n)

    def report(fraction: float, value: float) -> None:
        show(metric, value, round(bar.n))  # the last fraction is 1 where patience ran out, too

    def running(fraction: float, loss: float) -> None:
        show("loss", loss, fraction * epochs)

    with bar:
        yield report, running
