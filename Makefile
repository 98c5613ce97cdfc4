# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first.
# A GPU build of torch: `make venv TORCH_INDEX=` takes the platform's default wheel (CUDA on Linux).
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
PINS := .ci/constraints.txt
TORCH := $(shell grep '^torch==' $(PINS))
export OMP_NUM_THREADS ?= 1

.PHONY: venv demo test lint faults fuzz benchmark clean

venv: $(VENV)/.installed

# The CPU wheel where its index answers; the package index's own wheel of the same version otherwise.
$(VENV)/.installed: pyproject.toml $(PINS)
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) '$(TORCH)' 2>/dev/null || echo "no CPU build of $(TORCH) at $(TORCH_INDEX): taking the package index's own")
	$(BIN)/python -m pip install --quiet -c $(PINS) '$(TORCH)'
	$(BIN)/python -m pip install --quiet -c $(PINS) -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/diffphase run sweeps/quickstart.yaml

test: venv
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

# Kills, tears and fills what a running sweep stands on; prints its seed. `make faults SEED=7 COUNT=60`
COUNT ?= 36
faults: venv
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) --count $(COUNT)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# 10,000 random inputs for every reader of files; FUZZ_CASES=n for another number.
fuzz: export FUZZ_CASES ?= 10000
fuzz: venv
	$(BIN)/python -m pytest -q -n 2 --timeout 0 --hypothesis-show-statistics tests/fuzz

benchmark: venv
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/efficiency.py
	$(BIN)/python benchmarks/snapshot.py
	$(BIN)/python benchmarks/gather.py
	$(BIN)/python benchmarks/trials.py
	$(BIN)/python benchmarks/plans.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/boundary.py --analytic 20
	$(BIN)/python benchmarks/dimension.py

clean:
	rm -rf $(VENV) results
