# The two commands that matter: `make demo` draws three pictures, `make test` runs the fast suite. Both start from
# nothing but python3, and download nothing but packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: demo test test-all lint bench clean

demo: $(STAMP)
	$(BIN)/girih image "a red apple" "a penguin on a blue background" "a grinning face on a pink background" --out demo/

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow or not slow" --hypothesis-profile=full

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first: where a CPU-only build that fits the range is at hand, pip takes it and the rest leaves it alone.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) 'torch>=2.9,<2.14'
	$(PIP) -e '.[dev,data]'
	touch $(STAMP)
