# The commands of a checkout. `make run` and `make test` install what they need.
.DEFAULT_GOAL := run
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 2
JOBS ?= 2

.PHONY: docs reference run demo screenshots test fast coverage chaos kubernetes check bench clean install deb rpm repo

$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

# Run the daemon, embedded: state and log in .run/, no root, no other server.
run: install
	@mkdir -p .run
	STATE_DIRECTORY=$(CURDIR)/.run $(BIN)/recodex-monitor -c install/checkout.yml

# Run all parts, embedded, with sample data; Ctrl-C stops it.
demo: install
	@$(BIN)/python -m demo

# Take screenshots of the page in the demo, into docs/screenshots/.
screenshots: install
	$(BIN)/python -m demo.screenshots

# Run all tests. Missing programs are installed if possible (as root, on Debian). Tests that
# still lack something are skipped by name, or fail with RECODEX_TEST_REQUIRE_ALL=1. Tests wait
# more than they compute, so JOBS processes share the files, in their original order: the long
# ones do not come last.
test: install
	tests/install-servers
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Run only the tests that need no server, in seconds.
fast: install
	$(BIN)/pytest -m "not integration_test and not end_to_end and not distro"

# Which lines of monitor/ the fast tests run.
coverage: install
	$(BIN)/coverage run -m pytest -q -m "not integration_test and not end_to_end and not distro"
	$(BIN)/coverage report

# Inject random faults under load with all parts on, embedded and with servers, for MINUTES each,
# and then check every promise. The same SEED gives the same faults.
chaos: install
	tests/install-servers
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Test the cluster part with a real API server and its controllers, built once with Go.
kubernetes: install
	tests/build-kubernetes
	RECODEX_TEST_KUBERNETES=1 $(BIN)/pytest tests/cluster_real

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.check_wording

bench: install
	benchmarks/run

# Build packages into dist/; the same commit builds identical packages.
deb:
	packaging/build-deb

rpm:
	packaging/build-rpm

# Build an apt and a yum repository of the packages in dist/repo/, signed with the key REPO_KEY
# of gpg's keyring, to be served at REPO_URL.
repo: deb rpm
	packaging/build-repo

# Generate the parts of docs/reference that come from the code.
reference: install
	$(BIN)/python -m docs.generate

# Build the documentation as HTML, into build/docs.
docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

clean:
	rm -rf $(VENV) .run build dist *.egg-info
