PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The mathematics, which needs no torch, and the processes that the tests are spread over.
FAST := core set_functions decoders subsets recovery runs
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')

.PHONY: setup demo test fast lint notebooks docs figures check clean

setup: $(READY)

# One install, repeated only when what it installs has changed.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[trees,report,dev,docs]'
	@touch $(READY)

demo: setup
	$(BIN)/mechspex explain ioi

test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# A minute, for whoever works on the mathematics.
fast: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-torch -m 'not slow' \
		$(FAST:%=tests/%) $(FAST:%=mechspex/%)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Every notebook in a clean kernel; the executed copies lie in build/notebooks.
notebooks: setup
	$(BIN)/python notebooks/run.py

# The pages of docs/ and the reference, in build/docs; a warning is an error. No example is run here:
# the tests do that.
docs: setup
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs

# Every figure of the papers, in small, or those of FIGURES="or-gate recovery"; pictures and numbers
# in build/figures, the tables where the documentation draws them from. What is measured is kept: a
# run that was cut off goes on where it was.
figures: setup
	@mkdir -p build/figures
	@names="$(FIGURES)"; \
	for name in $${names:-$$($(BIN)/python -c 'import mechspex; print(*mechspex.experiments.FIGURES)')}; do \
		$(BIN)/mechspex figure $$name --out build/figures/$$name && \
		cp build/figures/$$name/reproduction.json tests/benchmarks/figures/$$name.json || exit 1; \
	done

check: lint notebooks docs test

clean:
	rm -rf $(VENV) build
