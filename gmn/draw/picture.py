"""A matplotlib figure that notebooks display without ``plt.show``."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure apart from pyplot's global state.

    Notebooks show plain figures only once pyplot has made one of its own.
    """

    def __init__(self, *, figsize: tuple[float, float], layout: Any = None) -> None:
        super().__init__(figsize=figsize, layout=layout)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
