# Everything below sets itself up: a virtual environment in .venv, the package and what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= outputs/quickstart
VERIFICATION_OUT ?= outputs/verification
SEEDS ?= 1
BENCH_OPTIONS ?=
HUB ?= outputs/hub

.PHONY: quickstart quickstart-verification bench demo docs hub test quality style clean

$(VENV)/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

## Teacher, baseline, KD, TH-KD and SH-KD on the embedded characters; a table, a plot, a card, three images classified.
quickstart: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py --config examples/configs/quickstart.yaml --output $(OUT) --seeds $(SEEDS)

## Open-set verification of the embedded characters: a table of TAR at FAR, ROC curves, a MobileFaceNet that verifies.
quickstart-verification: $(VENV)/.installed
	$(BIN)/python examples/quickstart_verification.py --config examples/configs/quickstart_verification.yaml --output $(VERIFICATION_OUT) --seeds $(SEEDS)

## Every claim about speed and memory, measured on this machine in under 20 minutes on two cores, into docs/results/benchmarks.*;
## BENCH_OPTIONS="--reference CHECKOUT --insightface CHECKOUT" compares with the authors' code and with insightface.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/run_all.py $(BENCH_OPTIONS)

## A page to try models: DEMO_MODELS, DEMO_TEACHER and DEMO_VERIFICATION_MODELS name Hub ids or folders.
demo: $(VENV)/.installed
	$(BIN)/python spaces/app.py

## The guides and the API reference as a site in site/; open site/index.html. Its search needs a web server.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

## A Hub on loopback, to try a push by hand; it prints its tokens and what to export.
hub: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m hub_server --folder $(HUB)

## Every test, on two processes: most tests keep one core busy. Files stay whole, for what their tests share.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

## What continuous integration also checks: lint, format, types.
quality: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
