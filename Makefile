# The commands of a checkout; `make` lists them. `make run` and `make test` install what they need.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 2
JOBS ?= 6
# Of failed tests, which shared the machine with others. One that passes only now depends on the
# machine's load: a defect of the test or of the daemon, so both reports name it.
AGAIN := $(BIN)/pytest --last-failed --last-failed-no-failures none --maxfail 5 -rap
# The loop takes the end of a test's time for a failed callback if it comes in one. Then the process
# that runs the test ends after a quarter of an hour, and it is tried once more at most.
SHARED = -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 1 \
    -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true
FAST := not integration_test and not end_to_end and not distro
# Without compiled modules, each start of Python would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help docs reference run demo screenshots test fast coverage chaos hostile kubernetes check \
    audit bench clean install runtime deb rpm repo

# List the commands.
help:
	@awk '/^# /{text = text substr($$0, 2); next} \
	    /^[a-z]+( [a-z]+)*:/{if (text != "") {sub(/[.;:] .*|\.$$/, "", text); split($$0, name, ":"); \
	    printf "make %-12s%s\n", name[1], text}} {text = ""}' $(MAKEFILE_LIST)

runtime:
	@install/venv runtime $(PYTHON)

# Install everything for development into .venv.
install:
	@install/venv dev $(PYTHON)

# Run the daemon embedded, with state and log in .run/.
# It needs no root and no other server.
run: runtime
	@mkdir -p .run
	STATE_DIRECTORY=$(CURDIR)/.run $(BIN)/recodex-monitor -c install/checkout.yml

# Run all parts, embedded, with sample data; Ctrl-C stops it.
demo:
	@install/venv all $(PYTHON)
	@$(BIN)/python -m demo

# Take screenshots of the page in the demo, into docs/screenshots/.
screenshots: install
	$(BIN)/python -m demo.screenshots

# Run all tests, and install the programs that they need (as root, on Debian).
# Tests that still lack something are skipped by name, or fail with RECODEX_TEST_REQUIRE_ALL=1.
# They wait more than they compute, so JOBS processes share the files, in their original order:
# the long ones do not come last.
# Those that fail are run again by themselves.
test: install
	tests/install-servers
	$(BIN)/pytest $(SHARED) || { [[ $$? == 1 ]] && $(AGAIN); }

# Run only the tests that start no server and no process.
# Properties get fewer examples than in `make test`.
fast: install
	RECODEX_TEST_EXAMPLES=20 $(BIN)/pytest -m "$(FAST)"

# Show which lines of monitor/ the fast tests run.
# Properties get as few examples as in `make fast`: more cover hardly a line more.
# These tests compute and hardly wait, so a process a core shares the files; each leaves data of its own.
coverage: JOBS := $(shell nproc)
coverage: install
	$(BIN)/coverage erase
	RECODEX_TEST_EXAMPLES=20 $(BIN)/coverage run -m pytest -q $(SHARED) \
	    -m "$(FAST)" || { [[ $$? == 1 ]] && $(AGAIN); }
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Inject random faults under load, then check every promise.
# It takes MINUTES in each of three variants.
# The same SEED gives the same faults; KILLS repeats it until so many kill -9.
chaos: install
	tests/install-servers
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
	    $(if $(KILLS),--kills $(KILLS))

# Attack a daemon in every known way, each for EACH seconds; ONLY picks attacks by a part of their name.
hostile: install
	@$(BIN)/python -m tests.hostile --seconds $(or $(EACH),10) $(if $(ONLY),--only "$(ONLY)")

# Test the cluster part with a real API server and its controllers, built once with Go.
kubernetes: install
	tests/build-kubernetes
	RECODEX_TEST_KUBERNETES=1 $(BIN)/pytest tests/cluster_real

# Run ruff, mypy, import-linter and the wording check.
# Where the machine is very busy, mypy's workers may come too late, which is its status 2.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers $(shell nproc) || { [[ $$? == 2 ]] && $(BIN)/mypy; }
	$(BIN)/lint-imports
	$(BIN)/python -m docs.check_wording

# Run the benchmarks.
bench: install
	benchmarks/run

# Look up known vulnerabilities of all libraries, also those that the packages bundle; needs pypi.org.
audit: install
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --requirement requirements.txt --requirement requirements-cluster.txt
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement packaging/carried.txt

# Build the deb into dist/. The same commit builds an identical package.
deb:
	packaging/build-deb

# Build the rpm into dist/.
rpm:
	packaging/build-rpm

# Build an apt and a yum repository in dist/repo/.
# They are signed with the key REPO_KEY of gpg's keyring, to be served at REPO_URL.
repo: deb rpm
	packaging/build-repo

# Generate the parts of docs/reference that come from the code.
reference: install
	$(BIN)/python -m docs.generate

# Build the documentation as HTML, into build/docs.
docs: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build -q -W --keep-going docs build/docs

# Remove everything that these commands have made.
clean:
	rm -rf $(VENV) .run build dist *.egg-info
