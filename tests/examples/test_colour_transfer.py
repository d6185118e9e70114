"""Colour transfer on small photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import io
from torch import Tensor

from examples import colour_transfer
from examples.colour_transfer import LABELS, Palette, main, photograph, transferred
from gmn.transport import assigned_wasserstein


def small(name: str) -> Tensor:
    return photograph(name)[::20, ::20].contiguous()


def test_photographs_need_no_network() -> None:
    for name in ("astronaut", "chelsea", "coffee"):
        pixels = photograph(name)
        assert pixels.shape[2] == 3
        assert pixels.min() >= 0
        assert 0.5 < pixels.max() <= 1


def test_colours_stand_for_their_pixels() -> None:
    palette = Palette.of(small("chelsea"), 24, seed=0)
    distances = torch.cdist(palette.pixels.flatten(0, 1), palette.colours)
    assert torch.equal(distances.argmin(1).view(palette.nearest.shape), palette.nearest)
    assert float(palette.shares().sum()) == pytest.approx(1)
    torch.testing.assert_close(palette.recoloured(palette.colours), palette.pixels)
    brighter = palette.recoloured(palette.colours + 0.7)
    assert float(brighter.max()) == 1
    assert (brighter >= palette.pixels).all()


def test_colours_are_transferred() -> None:
    source, palette = (Palette.of(small(name), 24, seed=0) for name in ("coffee", "chelsea"))
    before = float(assigned_wasserstein(source.colours, palette.colours))
    found = transferred(source, palette, steps=40, seed=0)
    assert found.keys() == LABELS.keys()
    for name, (colours, _) in found.items():
        after = float(assigned_wasserstein(colours, palette.colours))
        assert after < (0.9 if name == "sw2-weighted" else 0.4) * before
        pixels = source.recoloured(colours)
        assert pixels.shape == source.pixels.shape
        assert pixels.min() >= 0
        assert pixels.max() <= 1
    torch.testing.assert_close(
        found["assignment"][0].sort(0).values, palette.colours.sort(0).values
    )


def test_the_program_is_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour_transfer, "SAMPLE", 50)
    for name in ("coffee", "chelsea"):
        pixels = (small(name) * 255).byte().numpy()
        io.imsave(tmp_path / f"{name}.png", pixels, check_contrast=False)
    arguments = ["--source", str(tmp_path / "coffee.png"), "--palette"]
    arguments += [str(tmp_path / "chelsea.png"), "--colours", "12", "--steps", "4"]
    for out in ("first", "second"):
        main([*arguments, "--out", str(tmp_path / out)])
    first, second = (tmp_path / out for out in ("first", "second"))
    found = json.loads((first / "results.json").read_text())
    assert len(found) == 1 + len(LABELS)
    exact = found[-1]
    # No way is shorter than that of the assignment, which is all the distance there was.
    assert exact["moved"] == pytest.approx(found[0]["colours"], rel=1e-5)
    assert all(e["moved"] + e["colours"] > 0.999 * exact["moved"] for e in found)
    for name in ("results.json", "sw2.png", "db-tsw.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert io.imread(first / "sw2.png").shape == small("coffee").shape
    assert (first / "colours.png").exists()


def test_what_is_no_photograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="neither a file nor one of"):
        photograph("nothing")
    grey = tmp_path / "grey.png"
    io.imsave(grey, np.zeros((4, 4), np.uint8), check_contrast=False)
    with pytest.raises(SystemExit, match="RGB is needed"):
        photograph(str(grey))
