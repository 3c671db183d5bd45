# The two commands of the README are `make demo` and `make test`; both do all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test e2e nightly real-vllm fuzz lint format types security deploy-lint check bed-up bed-down kind kind-down lock schema clean

help:  ## Show the targets.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## Create the virtual environment with the locked dependencies.

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kprof needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $(STAMP)

demo: setup  ## Run the H100 sweep on this machine with the simulator.
	@mkdir -p .kprof
	@$(BIN)/kprof sweep matrices/h100.yaml --on local --simulate --simulate-speed 10 --fresh --store .kprof/demo.db

test: setup  ## Run the tests; the cluster suite runs with KPROF_E2E=1 and is skipped, loudly, without.
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

e2e: setup  ## Run the cluster suite: on KUBECONFIG if it is set, else on the project's own test bed (root, Go).
	@KPROF_E2E=1 $(BIN)/python -m pytest tests/contract tests/e2e tests/security tests/kueue tests/bedfaults tests/kill $(PYTEST_ARGS)

nightly: setup  ## The long forms of the fault tests on the test bed: 1000 kills, the API server away for 15 minutes.
	@KPROF_E2E=1 KPROF_KILLS=1000 KPROF_OUTAGE_SECONDS=900 $(BIN)/python -m pytest -s tests/kill tests/bedfaults $(PYTEST_ARGS)

real-vllm: setup  ## Profile a tiny model on a real vLLM, CPU build (downloads 2 to 5 GB once).
	@KPROF_REAL_VLLM=1 $(BIN)/python -m pytest tests/real_vllm $(PYTEST_ARGS)

fuzz: setup  ## Feed a million damaged logs to the parser.
	@$(BIN)/python -m tests.fuzz.fuzz_vllm_log

lint: setup  ## Check style and format.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup  ## Format the code.
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

types: setup  ## Check types.
	@$(BIN)/mypy

# B104: the simulator listens where vLLM does. B108: /dev/shm is inside the pod.
security: setup  ## Look for unsafe constructs in the code.
	@$(BIN)/bandit --quiet --recursive orchestrator --severity-level medium --skip B104,B108

# checkov brings its own versions of half of PyPI, so it lives in an environment of its own.
CHECKOV_VERSION := 3.3.30
CHECKOV := $(or $(KPROF_CACHE),$(HOME)/.cache/kprof)/checkov-$(CHECKOV_VERSION)

deploy-lint: setup  ## Lint Dockerfile, scripts, YAML, manifests and chart; builds helm and kustomize, installs checkov.
	@$(BIN)/python -m tests.bed.helm
	@test -x $(CHECKOV)/bin/checkov || { $(PYTHON) -m venv $(CHECKOV) && $(CHECKOV)/bin/pip install --quiet \
	  --disable-pip-version-check checkov==$(CHECKOV_VERSION); }
	@PATH=$(CURDIR)/$(BIN):$(CHECKOV)/bin:$$PATH KPROF_REQUIRE_LINT=1 manifests/lint.sh

check: lint types test  ## Everything but the cluster suite.

bed-up: setup  ## Start the test bed: a real Kubernetes on this machine.
	@$(BIN)/python tests/bed/bed.py up

bed-down: setup  ## Stop the test bed and remove every trace of it.
	@$(BIN)/python tests/bed/bed.py down

kind:  ## Make a kind cluster with the simulator's image and GPUs advertised (needs Docker and kind).
	@tests/kind/up.sh

kind-down:  ## Delete the kind cluster.
	@tests/kind/down.sh

lock: setup  ## Resolve the dependencies anew into requirements.lock (needs uv).
	@uv pip compile --quiet pyproject.toml --group dev --universal --generate-hashes --python-version 3.11 --no-header -o requirements.lock

schema: setup  ## Write matrices/schema.json.
	@$(BIN)/python -m orchestrator.matrix.json_schema > matrices/schema.json

clean:  ## Remove the virtual environment and what tools left behind.
	@rm -rf $(VENV) .kprof .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
