"""The shape of the library: import circles, rooms per package, lines, public names.

Imports are those of modules when they are loaded and within functions, found by grimp; imports
for type checkers are left out. Exits with 1 if modules import each other in a circle.

Run: python -m benchmarks.structure [--names]
"""

from __future__ import annotations

import argparse
import ast
import subprocess
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gmn", "converters", "baselines")


def circles() -> Iterator[list[str]]:
    """Circles of modules that import each other, one after the other is taken apart."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    imports = {
        module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules
    }
    while True:
        try:
            TopologicalSorter(imports).prepare()
            return
        except CycleError as error:
            circle = error.args[1]
            yield circle
            imports[circle[1]].discard(circle[0])


def rooms(package: Path) -> Iterator[tuple[str, int]]:
    """Every package with the number of modules and packages on its first level."""
    inside = [
        path
        for path in package.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    ]
    modules = [path for path in inside if path.name != "__init__.py"]
    yield ".".join(package.relative_to(ROOT).parts), len(modules)
    for path in sorted(modules):
        if path.is_dir():
            yield from rooms(path)


def public_names(path: Path) -> list[str]:
    """What a module offers: its ``__all__``, or else its public classes and functions."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    kinds = ast.ClassDef | ast.FunctionDef
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def tracked(folder: str) -> list[Path]:
    """Python files that are under version control."""
    found = subprocess.run(
        ["git", "ls-files", f"{folder}/*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in found.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="list the public names of each module")
    arguments = parser.parse_args()
    for folder in (*PACKAGES, "tests"):
        files = tracked(folder)
        lines = sum(len(path.read_text().splitlines()) for path in files)
        print(f"{folder}: {len(files)} files, {lines:,} lines")
    print("\nrooms on the first level of each package:")
    for package in PACKAGES:
        for name, count in rooms(ROOT / package):
            print(f"  {name}: {count}")
    print("\npublic names:")
    for package in PACKAGES:
        names = {path: public_names(path) for path in tracked(package)}
        fronts = {p: found for p, found in names.items() if p.name == "__init__.py" and found}
        for path, found in (names if arguments.names else fronts).items():
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            listed = f": {', '.join(found)}" if arguments.names else ""
            print(f"  {module.removesuffix('.__init__')} {len(found)}{listed}")
    classes = Counter(
        node.name
        for package in PACKAGES
        for path in tracked(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    twice = {name: count for name, count in classes.items() if count > 1}
    print(f"\nclass names with several meanings: {twice or 'none'}")
    found = list(circles())
    for circle in found:
        print(f"circle: {' → '.join(reversed(circle))}")
    if found:
        raise SystemExit(1)
    print("no import circles")


if __name__ == "__main__":
    main()
