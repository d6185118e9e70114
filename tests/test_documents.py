"""README and notebooks run as they stand; the three packages come from one checkout."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import matplotlib.pyplot as plt
import pytest
import torch

import baselines
import converters
import gmn
from converters.exporting import leaves
from converters.rules import RULES
from examples import shallow_sirens
from gmn import registry
from tests.brief_zoos import make_brief
from tests.traced import slow_beyond

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
LONG = {"04-head-to-head.py", "05-tasks.py"}  # even in short; others train and compare, too
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.fixture
def own_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is registered meanwhile is forgotten."""
    monkeypatch.setattr(leaves, "CLASSES", dict(leaves.CLASSES))
    with patch.dict(RULES):
        yield


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/converting.md",
        "docs/performance.md",
        "docs/training.md",
        "docs/writing-a-rule.md",
        "docs/writing-a-layer.md",
    ],
)
@pytest.mark.usefixtures("own_rules")
def test_pages_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(block, names)


def test_the_readmes_first_screen_shows_both_commands() -> None:
    first = (ROOT / "README.md").read_text().splitlines()[:30]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    places = [link.partition("#")[0] for link in links if "://" not in link]
    missing = [place for place in places if not (page.parent / place).exists()]
    assert not missing, f"{page.name} links to nothing: {missing}"


def test_every_installed_model_has_its_row() -> None:
    text = (ROOT / "docs" / "metanetworks.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    missing = [name for name in registry.names() if not any(f"`{name}`" in row for row in rows)]
    assert not missing, f"docs/metanetworks.md says nothing of {missing}"


def test_the_glossary_is_in_order_and_names_what_there_is() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line[:2] == "| "][1:]
    assert terms == sorted(terms, key=str.lower)
    for name in re.findall(r"`((?:gmn|converters|baselines)(?:\.\w+)+)`", text):
        assert pkgutil.resolve_name(name) is not None


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_in_step_with_their_text(source: Path) -> None:
    import jupytext

    notebook = jupytext.read(source.with_suffix(".ipynb"))
    text = jupytext.read(source)
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in text.cells], (
        f"run: jupytext --sync {source}"
    )


SHORT = {r"\bsize=": 30, r"\bepochs=": 1, r"\brange\(": 10}  # networks, epochs, other rounds


def shortened(text: str) -> str:
    for before, most in SHORT.items():
        text = re.sub(rf"({before})(\d+)", lambda m, n=most: f"{m[1]}{min(int(m[2]), n)}", text)
    return text


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of populations train for a few steps."""
    make_brief(monkeypatch)
    monkeypatch.setattr(shallow_sirens, "STEPS", 5)


@pytest.mark.usefixtures("own_rules", "short_runs", "quick_costs")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of tensors
@pytest.mark.parametrize(
    "source", slow_beyond(NOTEBOOKS, {source.name for source in NOTEBOOKS} - LONG)
)
def test_notebooks_run_in_short(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As programs, which saves a kernel and all imports."""
    monkeypatch.chdir(tmp_path)
    program = ModuleType("__main__")
    with torch.random.fork_rng():
        exec(compile(shortened(source.read_text()), source, "exec"), vars(program))
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(source: Path, tmp_path: Path) -> None:
    """As a kernel executes them."""
    import jupytext
    from nbclient import NotebookClient

    NotebookClient(jupytext.read(source), timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()  # fmt: skip


def test_the_page_of_rules_is_that_of_the_table() -> None:
    from converters.rules.__main__ import page

    assert (ROOT / "docs" / "rules.md").read_text() == page(), (
        "run: python -m converters.rules > docs/rules.md"
    )


def test_one_checkout() -> None:
    places = {
        Path(package.__file__ or "").parent.parent for package in (gmn, converters, baselines)
    }
    assert len(places) == 1, f"another package shadows ours: {places}"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import gmn, converters", ("torch", "pyarrow")),
        ("import gmn.cli", ("torch", "pyarrow")),
        (
            "from typer.testing import CliRunner; from gmn.cli import app; "
            "assert CliRunner().invoke(app, ['zoo', 'build', '--help']).exit_code == 0",
            ("torch", "pyarrow"),
        ),
        ("import gmn.train, converters, baselines.presets", ("torch._dynamo",)),
    ],
    ids=["import", "command", "help", "training"],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str, heavy: tuple[str, ...]) -> None:
    heavy = (*heavy, "scipy", "torch_geometric", "matplotlib")
    code = f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed
