# Everything a checkout can do. `make run` and `make test` install what they need.
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

# The daemon, embedded: state and log in .run/, no root, no other server.
run: install
	@mkdir -p .run
	STATE_DIRECTORY=$(CURDIR)/.run $(BIN)/recodex-monitor -c install/checkout.yml

# All parts on, embedded, with something to see; Ctrl-C ends it.
demo: install
	@$(BIN)/python -m demo

# The page's views, of the demonstration, into docs/screenshots/.
screenshots: install
	$(BIN)/python -m demo.screenshots

# All tests. What a test needs and this machine lacks is installed where that is possible
# (as root, on Debian); what is still missing is skipped and named, and with
# RECODEX_TEST_REQUIRE_ALL=1 it fails. They wait more than they compute, so JOBS processes share
# the files, in their own order: the long ones are not among the last.
test: install
	tests/install-servers
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The pure tests alone: seconds.
fast: install
	$(BIN)/pytest -m "not integration_test and not end_to_end and not distro"

# Which lines of monitor/ the fast tests run.
coverage: install
	$(BIN)/coverage run -m pytest -q -m "not integration_test and not end_to_end and not distro"
	$(BIN)/coverage report

# Random faults under load with all parts on, embedded and with servers, for MINUTES each; then
# every promise is checked. The same SEED gives the same faults.
chaos: install
	tests/install-servers
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# The cluster part with a real API server and its controllers, which Go builds once.
kubernetes: install
	tests/build-kubernetes
	RECODEX_TEST_KUBERNETES=1 $(BIN)/pytest tests/cluster_real

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	benchmarks/run

# Packages, into dist/; the same commit gives the same bytes.
deb:
	packaging/build-deb

rpm:
	packaging/build-rpm

# An apt and a yum repository of them in dist/repo/, signed with the key that REPO_KEY names
# in gpg's keyring, to be served at REPO_URL.
repo: deb rpm
	packaging/build-repo

# The parts of docs/reference that are made from the code.
reference: install
	$(BIN)/python -m docs.generate

# These pages as HTML, into build/docs.
docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

clean:
	rm -rf $(VENV) .run build dist *.egg-info
