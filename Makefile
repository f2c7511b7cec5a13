# Set-up, tests and a first run. Every target makes .venv when it is missing; `make help` lists them.

PYTHON ?= python3
RUN := runs/quickstart
CORPUS := runs/data/python-stdlib

# One pytest worker a core, but not more than pay: each has XLA's threads beside it.
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(shell [ $(CORES) -gt 4 ] && echo 4 || echo $(CORES))
# worksteal leaves the tests of a file, which share fixtures and programs, with one worker.
PYTEST := .venv/bin/python -m pytest -q -n $(WORKERS) --dist worksteal
# Slurm's daemons want to be root.
as_root = $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help venv train test test-all test-eval test-clients test-plan test-ray test-slurm test-gcs test-page docs check compare-env clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

# An interpreter outside requires-python fails deep inside pip; here it is one line.
.venv/bin/python:
	@$(PYTHON) -c 'import re, sys; \
	low, high = map(int, re.search(r"requires-python = \">=3.(\d+),<3.(\d+)\"", open("pyproject.toml").read()).groups()); \
	sys.exit(None if (3, low) <= sys.version_info[:2] < (3, high) else "error: this needs Python 3.%d to 3.%d and %s is %s; try: make PYTHON=python3.%d" % (low, high - 1, sys.executable, sys.version.split()[0], high - 2))'
	@$(PYTHON) -m venv .venv

# Stamps say which extras .venv has. A larger set includes the smaller ones: after `make check`,
# `make test` has nothing to install. pip compiles bytecode on one core; compileall takes them all.
define install
	@echo "installing into .venv (about a minute the first time)"
	@.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.$(1)'
	@PYTHONWARNINGS=ignore .venv/bin/python -m compileall -q -j 0 -x '/tests?/' .venv/lib >/dev/null || true
	@touch $(2)
endef

.venv/.core: pyproject.toml setup.py | .venv/bin/python
	$(call install,,$@)

.venv/.test: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test],$@ .venv/.core)

.venv/.all: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test$(comma)serve],$@ .venv/.test .venv/.core)

.venv/.docs: pyproject.toml setup.py | .venv/bin/python
	$(call install,[docs],$@ .venv/.core)

.venv/.dev: pyproject.toml setup.py | .venv/bin/python
	$(call install,[dev],$@ .venv/.docs .venv/.test .venv/.core)

.venv/.eval: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test$(comma)eval],$@ .venv/.test .venv/.core)

.venv/.clients: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test$(comma)clients],$@ .venv/.test .venv/.core)

.venv/.tpu: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test$(comma)tpu],$@ .venv/.test .venv/.core)

.venv/.ray: pyproject.toml setup.py | .venv/bin/python
	$(call install,[test$(comma)cluster$(comma)hub],$@ .venv/.test .venv/.core)

comma := ,

venv: .venv/.all  ## make .venv with the core, the tests' packages and the server's

train: .venv/.core  ## train a small GPT-2 on the standard library's source, and sample from it
	@test -f $(CORPUS)/meta.json || .venv/bin/gpt2-jax prepare --corpus python-stdlib --tokenizer byte --val_fraction 0.01 --out $(CORPUS)
	.venv/bin/gpt2-jax train --config configs/quickstart.py --workdir $(RUN)
	.venv/bin/gpt2-jax sample --model $(RUN) --prompt "def " --max_new_tokens 120 --num_samples 2 --temperature 0.8

test: .venv/.test  ## run all tests but the slow ones
	$(PYTEST)

test-all: .venv/.test  ## run all tests
	$(PYTEST) -m ""

test-eval: .venv/.eval  ## run the tests that need lm-eval
	$(PYTEST) -m lm_eval tests/evals tests/serve

test-clients: .venv/.clients  ## run the tests that need the openai package
	$(PYTEST) -m openai tests/serve tests/test_readme.py

test-plan: .venv/.tpu  ## run the tests that compile for TPUs, which need none
	$(PYTEST) -m libtpu tests/planning

test-ray: .venv/.ray  ## run the tests that need Ray and the datasets library
	$(PYTEST) -m ray tests/prepare

test-slurm: .venv/.test  ## install Debian's slurm-wlm if it is missing, train in a real Slurm
	@command -v sbatch >/dev/null || { $(as_root) apt-get update -q && \
	$(as_root) apt-get install -y -q --no-install-recommends slurm-wlm; }
	$(as_root) .venv/bin/python -m pytest -q -s -m slurm tests/launch/test_slurm.py

test-gcs: .venv/.dev  ## train with a workdir and shards in a fake Google Cloud Storage
	.venv/bin/python -m pytest -q -s -m gcs tests/test_gcs.py tests/data/test_bucket_shards.py

test-page: .venv/.test  ## install Debian's chromium if it is missing, read the explorer's page in it
	@command -v chromium >/dev/null || { $(as_root) apt-get update -q && \
	$(as_root) apt-get install -y -q --no-install-recommends chromium; }
	.venv/bin/python -m pytest -q -m chromium tests/page

docs: .venv/.docs  ## build the documentation site, whose first page is build/site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

check: .venv/.dev docs  ## lint, format, types, the direction of imports, scripts, manifests and docs
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/shellcheck .ci/run launch/*.sh launch/slurm/*.sbatch
	.venv/bin/python tests/launch/check_manifests.py

compare-env:  ## make .venv-compare, with torch, transformers, lm-eval and CTranslate2, for experiments/
	@test -x .venv-compare/bin/python || $(PYTHON) -m venv .venv-compare
	.venv-compare/bin/python -m pip install --quiet --disable-pip-version-check -e '.[compare]'

clean:  ## remove .venv and what tools leave behind; runs/ stays
	rm -rf .venv .venv-compare build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find gpt2_jax tests configs -name __pycache__ -type d -prune -exec rm -rf {} +
