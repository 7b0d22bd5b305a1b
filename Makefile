# Each target makes the environment it needs, then runs one command. `make list` says what there is.
#   PYTHON=python3.12    the Python to set up with (3.11 or newer)
#   PROFILE=paper        the profile of tables and figures (default: embedded; some have one-gpu too)
#   SIZE=full            the size of a table or figure, as its suite names it
#   ROWS=all             a row for every registered method
#   ARGS="--seeds 0"     further words for the command
#   TEST_JOBS=4          processes that run the tests (default: 2; 0: this one alone)
#   LOWEST=1             the lowest versions that the project accepts, in an environment of their own
#   TORCH_INDEX=URL      a package index to take torch from (a CPU build, for example)

VENV := $(if $(LOWEST),.venv-lowest,.venv)
# An environment that is there goes on with the Python it was made with.
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,python3)
PROFILE ?= embedded
TEST_JOBS ?= 2
BENCH := $(VENV)/bin/quanta-bench
BOOTSTRAP = $(PYTHON) -I quanta_bench/bootstrap.py --folder $(VENV) \
	$(if $(LOWEST),--constraints constraints-lowest.txt) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
SUITE_WORDS = --profile $(PROFILE) $(if $(SIZE),--size $(SIZE)) $(if $(ROWS),--rows $(ROWS)) $(ARGS)
TABLES := table1 table2 table3 table4 tableF5 tableF6 tableF7 tableD1 tableH qpa qtha sums forgetting
FIGURES := figure2 figure4 sums-figure
OTHERS := params report fetch doctor verify tune list

.DEFAULT_GOAL := list
.PHONY: setup setup-dev setup-bench setup-docs setup-release $(TABLES) $(FIGURES) figure1 $(OTHERS) bench test lint audit
.PHONY: docs readme pictures dist

setup:
	@$(BOOTSTRAP)

# What tests and lint need, what benchmarks do, what the site and what a release does.
setup-dev setup-bench setup-docs setup-release: setup-%:
	@$(BOOTSTRAP) --extra $*

$(TABLES): setup
	@$(BENCH) table $@ $(SUITE_WORDS)

$(FIGURES): setup
	@$(BENCH) figure $@ $(SUITE_WORDS)

# No runs of a language model, so no profile; `verify` likewise.
figure1: setup
	@$(BENCH) figure 1 $(ARGS)

$(OTHERS): setup
	@$(BENCH) $@ $(ARGS)

bench: setup-bench
	@$(BENCH) bench $(ARGS)

test: setup-dev
	@$(VENV)/bin/python -m pytest --numprocesses $(TEST_JOBS) --dist loadfile $(ARGS)

lint: setup-dev
	@$(VENV)/bin/pre-commit run --all-files --show-diff-on-failure

# Known vulnerabilities of the releases in both files of constraints. Needs a network that reaches api.osv.dev.
audit: setup-dev
	@$(VENV)/bin/python .ci/audit.py $(ARGS)

# The site in site/, from README.md, docs/ and the docstrings; a link that leads nowhere is an error.
docs: setup-docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict $(ARGS)
	@echo "The site is in site/: open site/index.html, or serve it: $(VENV)/bin/python -m mkdocs serve"

# The source archive and the wheel of a release, in dist/, as an index would take them.
dist: setup-release
	@rm -rf dist
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(VENV)/bin/python -m build $(ARGS)
	@$(VENV)/bin/python -m twine check --strict dist/*

# Renew the tables of README.md and docs/ from the results that they show, and the pictures of docs/.
readme: setup
	@$(VENV)/bin/python docs/renew.py

pictures: setup
	@$(VENV)/bin/python docs/pictures.py
