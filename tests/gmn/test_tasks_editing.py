"""Editing INRs: what is rendered, what is wanted, trained, compared, applied to files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import gmn
from gmn import zoo
from gmn.comparison import Comparison, report, save
from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.nn import EditHead
from gmn.spec.program import ProgramError
from gmn.tasks import InrContrast, InrDilation, InrEditing, InrErosion, PixelGrid, task_of
from gmn.tasks.rendering import answers
from gmn.train import Recipe, csv_text, fit, load, predict_files, text_table, train
from tests.gmn.commands import run
from tests.gmn.editors import small
from tests.gmn.inrs import small_inrs
from tests.traced import BY_NAME, graph_of

pytestmark = pytest.mark.usefixtures("quick_costs")

SMALL = "tests.gmn.editors:small"


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return small_inrs(tmp_path_factory.mktemp("inrs"))


@pytest.fixture(scope="module")
def task(population: zoo.Zoo) -> InrDilation:
    return InrDilation(population, copies=2)


def seen(graph: ParameterGraph, points: Tensor) -> Tensor:
    """The slow way: layer by layer, (B, points)."""
    values, x = graph.values, points.expand(len(graph), -1, -1)
    for number in (1, 2, 3):
        x = x @ values[f"layer{number}.weight"].mT + values[f"layer{number}.bias"].unsqueeze(1)
        x = torch.sin(30 * x) if number < 3 else x
    return x.squeeze(2)


# --- rendering ----------------------------------------------------------------------------------


def test_networks_render_what_they_answer(population: zoo.Zoo) -> None:
    graph, grid = population.graph([3, 1, 4]), PixelGrid(8, 8)
    images = grid.images(graph)
    assert images.shape == (3, 1, 8, 8)
    torch.testing.assert_close(images.flatten(1), seen(graph, grid.points()))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_any_number_of_points(population: zoo.Zoo, count: int) -> None:
    graph = population.graph([0, 1])
    points = 2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) - 1
    torch.testing.assert_close(answers(graph, points).squeeze(2), seen(graph, points))


def test_rows_go_down_and_columns_to_the_right() -> None:
    points = PixelGrid(2, 3, corners=True).points().reshape(2, 3, 2)
    assert points[0, :, 0].tolist() == pytest.approx([-1, 0, 1])
    assert points[:, 0, 1].tolist() == pytest.approx([-1, 1])
    centres = PixelGrid(2, 4).points().reshape(2, 4, 2)
    assert centres[0, :, 0].tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75])
    assert centres[:, 0, 1].tolist() == [-0.5, 0.5]


def test_other_networks_are_refused() -> None:
    with pytest.raises(ProgramError, match="would have to be functions of 2 coordinates"):
        PixelGrid(2, 2).images(graph_of(BY_NAME["cnn"]))


# --- what is wanted -----------------------------------------------------------------------------


def neighbours(image: Tensor, row: int, column: int) -> Tensor:
    return image[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]


@pytest.mark.parametrize(("kind", "pick"), [(InrDilation, torch.max), (InrErosion, torch.min)])
def test_pixels_become_extremes_of_their_neighbours(kind: type[InrEditing], pick) -> None:  # type: ignore[no-untyped-def]
    image = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    found = kind(height=5, width=7).edit(image.expand(1, 1, 5, 7))[0, 0]
    expected = [[float(pick(neighbours(image, r, c))) for c in range(7)] for r in range(5)]
    assert torch.equal(found, torch.tensor(expected))


def test_contrast_doubles_distances_from_the_mean() -> None:
    image = torch.tensor([[0.3, 0.4], [0.5, 0.9]]).expand(1, 1, 2, 2)  # mean 0.525
    found = InrContrast(height=2, width=2).edit(image).flatten()
    torch.testing.assert_close(found, torch.tensor([0.075, 0.275, 0.475, 1.0]))


def test_targets_are_edits_of_rendered_images(task: InrDilation) -> None:
    (part,) = task.split("test")
    images = seen(part.graph, task.grid.points()).reshape(-1, 1, 8, 8)
    torch.testing.assert_close(part.target, task.edit(images))
    torch.testing.assert_close(task.baselines()["doing nothing"], images)
    mean = task.baselines()["always the mean"]
    torch.testing.assert_close(mean[7], task.split("train")[0].target.mean(0))
    assert mean.shape == images.shape


def test_several_edits_count_as_the_mean_of_their_images(task: InrDilation) -> None:
    first, second = (task.split("test")[0].graph[i : i + 3] for i in (0, 3))
    target = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    both = ParameterGraph.cat([first, second])
    mean = (task.grid.images(first) + task.grid.images(second)) / 2
    torch.testing.assert_close(task.prediction(both), mean)
    assert float(task.loss(both, target)) == pytest.approx(float((mean - target).square().mean()))
    assert task.metrics(mean, target)["mse"] == pytest.approx(float(task.loss(both, target)))
    with pytest.raises(ValueError, match="it has to give 2 networks per network"):
        task.loss(ParameterGraph.cat([both, both]), target)


def test_the_grid_has_to_be_known(population: zoo.Zoo, tmp_path: Path) -> None:
    assert InrDilation(population).grid == PixelGrid(8, 8)
    manifest = population.manifest
    unknown = zoo.open(population.folder)
    unknown.manifest = {**manifest, "configuration": {}}
    with pytest.raises(ValueError, match="give the height and width of its images"):
        InrDilation(unknown)
    chosen = InrDilation(unknown, height=5, width=4, corners=True)
    assert chosen.split("val")[0].target.shape[1:] == (1, 5, 4)
    with pytest.raises(ValueError, match="a height and a width, or neither"):
        InrDilation(population, height=5)
    with pytest.raises(ValueError, match="copies is 0"):
        InrDilation(population, copies=0)


# --- trained ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_editing_beats_doing_nothing(task: InrDilation) -> None:
    torch.manual_seed(0)
    model = task.build(small, task.split("train")[0].graph.spec)
    result = train(model, task, Recipe(epochs=12, batch_size=16, learning_rate=1e-2))
    nothing = task.metrics(task.baselines()["doing nothing"], result.target)
    assert result.prediction.shape == (19, 1, 8, 8)
    assert result.metrics["mse"] < 0.4 * nothing["mse"]
    assert result.metrics["psnr"] > nothing["psnr"]


def numbers_only(spec: gmn.GraphSpec, outputs: int | EditHead) -> torch.nn.Module:
    raise UnsupportedArchitecture("answers with numbers only")


@pytest.fixture(scope="module")
def comparison(population: zoo.Zoo) -> Comparison:
    return gmn.compare(
        partial(task_of, population.folder, "inr-dilation", {"copies": 2}),
        {"still": still, "small": small, "numbers": numbers_only},
        seeds=2,
        recipe=Recipe(epochs=3, learning_rate=1e-2, patience=7, ema=0.5, clip=2.0),
        workers=1,
        progress=False,
    )


def still(spec: gmn.GraphSpec, head: EditHead) -> torch.nn.Module:
    """Gives back what it got, unchanged."""

    class Still(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))

        def forward(self, graph: ParameterGraph) -> ParameterGraph:
            scaled = {name: value + 0 * self.scale for name, value in graph.values.items()}
            return ParameterGraph.cat([graph.replace(scaled)] * head.copies)

    return Still()


def test_comparisons_rank_smaller_errors_first(comparison: Comparison) -> None:
    assert [row.model for row in comparison.rows] == ["small", "still"]
    assert comparison.refused == {"numbers": "answers with numbers only"}
    better, worse = comparison.rows
    assert better.mean("mse") < worse.mean("mse")
    nothing = comparison.baselines["doing nothing"]["mse"]
    assert worse.mean("mse") == pytest.approx(nothing, rel=1e-5)
    assert comparison.p_value(worse) < 1e-3
    for row in comparison.rows:
        errors = torch.tensor(row.predictions)
        assert errors.shape == (2, 19)
        assert errors.mean(1).tolist() == pytest.approx(row.metrics["mse"], rel=1e-5)
    assert comparison.target == []
    assert len(comparison.to_json()) < 40_000


def test_the_table_and_the_picture_say_how_to_read_them(
    comparison: Comparison, tmp_path: Path
) -> None:
    save(comparison, tmp_path)
    again = Comparison.from_json((tmp_path / "comparison.json").read_text())
    assert again == comparison
    lines = str(again).splitlines()
    assert "MSE ↓" in lines[1]
    (nothing,) = (line for line in lines if line.strip().startswith("doing nothing"))
    assert f"{comparison.baselines['doing nothing']['mse']:.5f}" in nothing
    text = " ".join(str(again).split())
    for words in (
        "INR dilation (copies 2, height 8, width 8, corners False): 73/8/19 networks",
        "learning rate 0.01, weight decay 0.01, gradients clipped at 2",
        "stopped after 7 epochs without a better one, weights averaged with decay 0.5",
        "numbers is left out: answers with numbers only",
    ):
        assert words in text
    assert again._repr_html_().count("<tr>") == 5
    figure = report.plot(again)
    labels = [axis.get_ylabel().partition("\n")[0] for axis in figure.axes[::6]]
    assert labels == ["doing nothing", "always the mean", "dilated image", "small", "still"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


# --- the commands -------------------------------------------------------------------------------


def test_train_and_predict_from_the_command_line(
    population: zoo.Zoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = tmp_path / "model", tmp_path / "edited"
    command = ["train", str(population.folder), "--task", "inr-dilation", "-O", "copies=2"]
    options = ["-m", SMALL, "--out", str(model), "--epochs", "2", "--device", "cpu"]
    assert run(monkeypatch, *command, *options) == 0
    assert "for comparison, doing nothing: mse" in capsys.readouterr().out

    files = [tmp_path / name for name in ("a.safetensors", "b.pt", "empty.pt")]
    save_file(population.state(5), files[0])
    torch.save({n: v.double() for n, v in population.state(6).items()}, files[1])
    files[2].touch()
    names = [str(file) for file in files]
    trust = SMALL.partition(":")[0]
    arguments = ["--out", str(out), "--trust", trust]
    assert run(monkeypatch, "predict", str(model), *names, *arguments) == 1
    assert "a-1-of-2.safetensors" in capsys.readouterr().out
    trained = load(model, trust=[trust])
    assert trained.task.settings() == {"copies": 2, "height": 8, "width": 8, "corners": False}
    networks = trained.networks(population.graph([5]))
    for number, network in enumerate(networks, start=1):
        written = load_file(out / f"a-{number}-of-2.safetensors")
        assert all(torch.equal(v, written[n]) for n, v in network.to_state_dict().items())
        assert written.keys() == population.state(5).keys()
        assert load_file(out / f"b-{number}-of-2.safetensors")["layer1.bias"].dtype == torch.float64
    assert len(list(out.glob("*.safetensors"))) == 4

    found = predict_files(trained, files[:1])
    expected = torch.cat([trained.task.grid.images(n) for n in networks]).mean(0)  # type: ignore[attr-defined]
    torch.testing.assert_close(found[0].prediction, expected)
    assert "1 × 8 × 8 outputs" in text_table(trained, found)
    assert csv_text(trained, found).splitlines() == [
        "file,architecture,prediction,error",
        f"{files[0]},siren,,",
    ]


def test_nothing_of_the_users_is_overwritten(population: zoo.Zoo, tmp_path: Path) -> None:
    trained = fit(
        population.folder, SMALL, tmp_path / "m", Recipe(epochs=1), progress=False,
        task="inr-erosion",
    )  # fmt: skip
    place = tmp_path / "own"
    place.mkdir()
    save_file(population.state(0), place / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors is read, so .*own is not written to"):
        predict_files(trained, [place / "a.safetensors"], out=place)
    with pytest.raises(ValueError, match="would both be written as a"):
        predict_files(trained, [place / "a.safetensors", tmp_path / "a.pt"], out=tmp_path / "out")
    numbers = fit(population.folder, SMALL, tmp_path / "n", Recipe(epochs=1), progress=False)
    with pytest.raises(ValueError, match="answers with numbers: there are no networks to write"):
        predict_files(numbers, [place / "a.safetensors"], out=tmp_path / "out")
    with pytest.raises(ValueError, match="answers with numbers, not with networks"):
        numbers.networks(population.graph([0]))


def test_wrong_options_are_one_line(
    population: zoo.Zoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "tasks") == 0
    printed = capsys.readouterr().out
    for words in ("inr-dilation", "INR editing: every pixel", "-O copies=1", "-O height=..."):
        assert words in printed
    start = ["train", str(population.folder), "-m", SMALL, "-o", str(tmp_path / "m")]
    for arguments, message in (
        (["--task", "inr-dilution"], "no task is called 'inr-dilution'"),
        (["--task", "inr-dilation", "-O", "copies"], "give a name and a value"),
        (["--task", "inr-dilation", "-O", "size=3"], "has no option size"),
        (["--device", "abacus"], "--device abacus:"),
    ):
        assert run(monkeypatch, *start, *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
