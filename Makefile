# The words used here, by CI and in the README. `make` alone lists them.
#
# Everything runs in .venv, which is made once and again when pyproject.toml changes.
#   make install PYTHON=python3.12     another interpreter
#   make test ARGS="-k energy -x"      arguments for the command behind a target

PYTHON ?= python3
PYTHON_OLDEST ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python) 3.10)
ARGS ?=
# For `make gpu`, which installs nothing: .venv where there is one, unless PYTHON was named.
PY_GPU ?= $(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard $(PY)) $(PYTHON)),$(PYTHON))

VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest
OLDEST_INSTALLED := $(OLDEST)/.installed
NOTEBOOKS := $(patsubst examples/%,build/%,$(wildcard examples/notebooks/*.ipynb))
SOURCES := $(shell find lightning_gcam -name '*.py') $(wildcard examples/*.py)
STRANGERS := .venv-strangers
STRANGERS_INSTALLED := $(STRANGERS)/.installed
LOGGERS := .venv-loggers
LOGGERS_INSTALLED := $(LOGGERS)/.installed

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED)  ## Set up .venv with everything the other targets need

demo: install  ## Fine-tune a network on photographs, with a shortcut and without, and watch where it looks
	$(PY) examples/shortcut_on_photographs.py $(ARGS)

demo-digits: install  ## The same on small digits, in a minute and a half; nothing but scikit-learn's data
	$(PY) examples/planted_shortcut.py $(ARGS)

# The notebooks are executed where they, the package or the examples have changed since.
docs: install $(NOTEBOOKS)  ## Build the documentation site in site/, without the network
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet $(ARGS)
	@echo "Open site/index.html"

build/notebooks/%.ipynb: examples/notebooks/%.ipynb $(SOURCES) | $(INSTALLED)
	$(PY) -m nbconvert --to notebook --execute --output-dir $(@D) --log-level WARN \
	  --ExecutePreprocessor.startup_timeout=300 --ExecutePreprocessor.extra_arguments='["--log-level=ERROR"]' $<

# A file's tests stay in one process: some share what two real processes found.
test: install  ## Run the tests and the examples in the docstrings
	$(PY) -m pytest --numprocesses auto --dist loadfile $(ARGS)

check: install  ## Lint, formatting, types, and which file may import which
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: install  ## Format the code and fix what the linter can fix
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

build: install  ## Build wheel and sdist, and try the wheel in a clean environment
	rm -rf dist
	$(UV) build --python $(PY)
	$(PY) .ci/smoke_wheel.py $(UV) dist

extras: build  ## Try each extra of the wheel in an environment of its own: make extras ARGS="captum wandb"
	$(PY) .ci/try_extras.py $(UV) dist $(ARGS)

coverage: install  ## Run the tests and show the lines no test reaches
	$(PY) -m pytest --cov --cov-report=term-missing $(ARGS)

bench: install  ## Measure what one look costs, beside other explainers
	$(PY) -m benchmarks.cost.saliency_cost $(ARGS)

# A run that was stopped goes on: each training is kept in runs/shortcuts.jsonl.
shortcuts: install  ## Train with a shortcut and without, and keep the tables in docs/shortcuts.md
	$(PY) -m benchmarks.shortcuts.shortcuts $(ARGS)

# A run that was stopped goes on: each training is kept in runs/no_annotation.jsonl.
unannotated: install  ## The same on images and labels only, and keep the tables in docs/shortcuts.md
	$(PY) -m benchmarks.shortcuts.no_annotation $(ARGS)

# A run that was stopped goes on: each training is kept in runs/natural.jsonl. For photographs of yours: ARGS="--folder FOLDER"
natural: install  ## Train on photographs and solar cells, and keep the tables in docs/alarm_on_photographs.md
	$(PY) -m benchmarks.shortcuts.natural $(ARGS)

simulation: install  ## Simulate the alarm's rule, and keep the table in docs/shortcuts.md
	$(PY) -m benchmarks.shortcuts.simulation $(ARGS)

# A run that was stopped goes on: each network at a layer is kept in runs/comparison.jsonl.
comparison: install  ## Compare all methods on digits, and keep the tables in docs/paper.md
	$(PY) -m benchmarks.methods.comparison $(ARGS)
	$(PY) -m benchmarks.methods.method_figures

# A run that was stopped goes on: what is measured is kept in benchmarks/results/photographs.jsonl.
photographs: install  ## Compare methods and layers on photographs, and keep the tables in docs/methods_on_photographs.md
	$(PY) -m benchmarks.methods.photographs $(ARGS)

# A run that was stopped goes on: each network's result is kept in runs/zoo.jsonl.
zoo: install  ## Look at every family of networks, and keep the table in docs/models.md
	$(PY) -m tests.models.zoo $(ARGS)

pictures: install  ## Train the demo's networks and write the README's pictures; needs Chromium
	$(PY) docs/pictures.py $(ARGS)

guide-pictures: install  ## Make the pictures that the guides open with; needs Chromium
	$(PY) docs/guide_pictures.py $(ARGS)

# Old releases warn about each other, so here a warning is not an error.
test-oldest: $(OLDEST_INSTALLED)  ## Run the tests with the oldest supported dependencies, on Python 3.10
	$(OLDEST)/bin/python -m pytest -o filterwarnings=default --numprocesses auto --dist loadfile $(ARGS)

strangers: $(STRANGERS_INSTALLED)  ## Try examples/attach/ and volumes on other people's modules, the heavy packages too
	$(STRANGERS)/bin/python -m pytest tests/models/test_attach.py tests/models/test_dimensions.py tests/reference/test_maps_of_volumes.py $(ARGS)

loggers: $(LOGGERS_INSTALLED)  ## Try Comet, Aim, Neptune, ClearML and LitLogger with their own packages, without a network
	$(LOGGERS)/bin/python -m pytest tests/integration/loggers/test_services.py $(ARGS)

# In under 8 minutes, with any Python that has torch and Lightning: make gpu PYTHON=python3
gpu:  ## Run tests/gpu on a CUDA device, and write docs/gpu.md; installs nothing
	PYTHONPATH=. $(PY_GPU) -m benchmarks.cost.gpu_command $(ARGS)

version:  ## Print the version, which stands in lightning_gcam/__init__.py alone
	@sed -n 's/^__version__ = "\(.*\)"$$/\1/p' lightning_gcam/__init__.py

clean:  ## Remove environments, builds and caches; keep runs/
	rm -rf $(VENV) $(OLDEST) $(STRANGERS) $(LOGGERS) build dist site htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find lightning_gcam tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  found=`$(PYTHON) --version 2>/dev/null || echo "not there"`; \
	  echo "Python 3.10 or newer is needed, and '$(PYTHON)' is $$found." \
	       "Name another one: make install PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet uv

$(INSTALLED): pyproject.toml | $(UV)
	$(UV) pip install --python $(PY) --editable ".[dev]"
# An oracle of the scores. Its opencv-python needs a screen's libraries; grad-cam's headless one serves as well.
	$(UV) pip install --python $(PY) --no-deps "quantus==0.6.0"
	@touch $@

$(OLDEST_INSTALLED): pyproject.toml | $(UV)
	$(UV) venv --quiet --clear --python $(PYTHON_OLDEST) $(OLDEST)
	$(UV) pip install --python $(OLDEST)/bin/python --resolution lowest-direct --editable ".[dev]"
	@touch $@

$(STRANGERS_INSTALLED): pyproject.toml | $(UV)
	$(UV) venv --quiet --clear --python $(PY) $(STRANGERS)
	$(UV) pip install --python $(STRANGERS)/bin/python --editable ".[dev,strangers]"
	@touch $@

# Neptune's service has ended, and Lightning's logger for it with 2.6.4; LitLogger is the other package's, newer one.
$(LOGGERS_INSTALLED): pyproject.toml | $(UV)
	$(UV) venv --quiet --clear --python $(PY) $(LOGGERS)
	$(UV) pip install --python $(LOGGERS)/bin/python --editable ".[dev,loggers]" "neptune>=1.14" "pytorch-lightning<2.6.4"
	@touch $@
