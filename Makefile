# Two commands, each complete on a fresh machine: make demo, make test. make docs builds the site.
PYTHON ?= python3
# PyPI's PyTorch for Linux brings gigabytes of CUDA; without a GPU the CPU build is taken instead.
# `make demo TORCH_INDEX=` takes PyPI's.
ifeq ($(shell uname -s)$(shell command -v nvidia-smi),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif
VENV := .venv
BIN := $(VENV)/bin

# Where the imagery for pretraining lies, and how long one run may take; the next one goes on.
DATA ?= ../shared/data
MINUTES ?= 25

# Of tests: one more than there are cores, since some wait for what they have started.
PROCESSES := $(shell n=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? n + 1 : 4)))

# Compiled modules are kept: the tests start many processes, and each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-faults test-ray lint format explorer explorer-check docs docs-serve benchmarks \
	pretrain-tiny clean

demo: $(VENV)/.installed
	$(BIN)/rs-embed demo --out demo-output

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(PROCESSES) --dist=loadfile --no-loadscope-reorder

# What docs/reliability.md promises, at length: about twenty minutes.
test-faults: $(VENV)/.installed
	$(BIN)/python -m pytest --long -m fault -n auto --maxprocesses=4

# All tests of Ray, some of which `make test` leaves out: about four minutes.
test-ray: $(VENV)/.installed
	$(BIN)/python -m pytest --long tests/test_ray.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

# The page that `rs-embed explore` copies; it is committed, so that installing needs no Node.js.
explorer:
	cd explorer && $(NPM_CI) && npm run --silent build

explorer-check:
	cd explorer && $(NPM_CI) && npm run --silent lint && npm run --silent types && npm run --silent test
	@built=$$(mktemp -d) && cd explorer && npm run --silent build -- --outdir "$$built/page" \
		&& diff -rq "$$built/page" ../src/rs_embed/explorer/page; same=$$?; rm -r "$$built"; \
		test $$same = 0 || { echo "src/rs_embed/explorer/page is not what explorer/ builds: run make explorer and commit it" >&2; exit 1; }

# Into site/, which works from the disk too. Warnings are errors, but not with --quiet, which drops them
# uncounted. The variable silences an advertisement.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

benchmarks: $(VENV)/.installed
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

pretrain-tiny: $(VENV)/.installed
	$(BIN)/rs-embed pretrain recipes/scalemae-tiny.toml --data '$(DATA)' --minutes $(MINUTES)

clean:
	rm -rf $(VENV) demo-output site

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "rs-embed needs Python 3.11 or later; set PYTHON=python3.x" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@test -z '$(TORCH_INDEX)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt --no-deps --retries 0 --timeout 15 --index-url '$(TORCH_INDEX)' torch \
		|| echo "$(TORCH_INDEX) cannot be reached: taking PyTorch from the default index"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[classify,gee,maps,netcdf,stac,tables,train,test,lint,docs]'
	touch $@
