# make app: set up once, then run the app.   make help: everything else.

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
# More options for the command that is run: make test ARGS="-k chernoff"
ARGS =

.PHONY: help app test lint format bench bench-gpu study clean
.DEFAULT_GOAL := help

help:
	@echo "make app      set up .venv once, then run the app"
	@echo "make test     run the tests            (ARGS=\"tests/test_policies.py -n 0\")"
	@echo "make lint     ruff, mypy and the import contracts"
	@echo "make format   let ruff rewrite the code"
	@echo "make bench    time the solver against others, draw the plots (ARGS=\"--rounds 5\")"
	@echo "make bench-gpu  time the solver on a CUDA device (ARGS=\"--rows 512\"); says so where there is none"
	@echo "make study    measure what N samples of each distribution achieve, about 15 minutes; goes on where it stopped"
	@echo "make clean    remove .venv and what the tools left behind"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter (3.11 or later) that .venv is made from."

app: $(VENV)/.installed
	$(BIN)/geomix app $(ARGS)

# One thread a process: pytest already runs two processes.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=$${MKL_NUM_THREADS:-1} \
	    $(BIN)/python -m pytest $(ARGS)

# mypy finds packages by their folder's name, so it gets links with the installed names.
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/typing
	ln -sfn ../../app $(VENV)/typing/geomix_app
	ln -sfn ../../pages $(VENV)/typing/geomix_pages
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.solver $(ARGS)

# Exit status 2, after which make prints a line of its own, means: no CUDA device.
bench-gpu: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu $(ARGS)

study: $(VENV)/.installed-bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lab_study $(ARGS)

clean:
	rm -rf $(VENV) build geomix.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "geomix needs Python 3.11 or later, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV); this takes a few minutes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with the development tools; this takes a few minutes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(BIN)/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with the benchmark's competitors; this takes a few minutes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]" -c constraints.txt
	@touch $(VENV)/.installed $@
