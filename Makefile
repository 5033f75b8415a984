# Only Python 3.11 or newer, make and a package index are needed: uv is fetched into .tools when it is absent.
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
RUN := $(UV) run --frozen --no-sync
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
# Of the images; see images/stage/Dockerfile. A digest pins the base: python:3.11-slim-bookworm@sha256:...
DOCKER ?= docker
BASE_IMAGE ?= python:3.11-slim-bookworm
REGISTRY ?=
TAG ?= 0.1.0
REVISION ?= $(shell git describe --always --dirty --abbrev=12)
CLUSTER_OPTIONS ?=
image = $(REGISTRY:%=%/)kondense/$*-python:$(TAG)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-slowed test-docker test-cluster mutants lint format compile images kind clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.tools/bin/uv:
	python3 -m venv .tools || { echo "error: python3 must be able to make virtual environments (Debian: apt-get install python3-venv)." >&2; exit 1; }
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.synced: pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	$(UV) sync --frozen --compile-bytecode
	@touch $@

setup: .venv/.synced  ## make the environment (the other targets call it on first use)

run: setup  ## compress a network on this machine: the whole pipeline on Fashion-MNIST
	$(RUN) kondense run

# One thread for each of the test processes: networks this small gain nothing from more.
test: export OMP_NUM_THREADS := 1
# Empty: the many processes of the tests find the modules compiled.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup lint  ## lint and all tests that fit a laptop
	$(RUN) pytest -m "not slow and not docker" --numprocesses=auto --dist=loadfile --no-loadscope-reorder

test-slow: setup  ## the tests that take minutes
	$(RUN) pytest -m slow

test-slowed: setup  ## tests with servers and clients, whose processes are stopped at random: make test-slowed SLOWED="--busy 20"
	$(RUN) python -m benchmarks.slowed $(SLOWED)

test-docker: setup  ## the tests that need a Docker Engine
	$(RUN) pytest -m docker

test-cluster: setup  ## scenarios on the cluster that KUBECONFIG names: make test-cluster CLUSTER_OPTIONS="--list"
	$(RUN) python -m tests.e2e.cluster $(CLUSTER_OPTIONS)

mutants: setup  ## small faults put into modules, which their tests must find (not in CI): make mutants MODULES=halving
	$(RUN) --with cosmic-ray==8.7.0 python -m benchmarks.mutants $(MODULES)

lint: setup  ## check style, types, layers and YAML
	$(RUN) pre-commit run --all-files --show-diff-on-failure

format: setup  ## format the code
	$(RUN) ruff format . && $(RUN) ruff check --fix .

compile: setup  ## compile the pipelines for upload into build/
	$(RUN) kondense compile --output build

images: image-stage image-suggestion  ## build the images: make images REGISTRY=... TAG=... BASE_IMAGE=...@sha256:... PUSH=yes

image-%:
	@$(if $(PUSH),$(if $(findstring @sha256:,$(BASE_IMAGE)),,$(error BASE_IMAGE must have a digest in images that are pushed, but is $(BASE_IMAGE))))
	DOCKER_BUILDKIT=1 $(DOCKER) build --file images/$*/Dockerfile --tag $(image) $(BUILD_OPTIONS) --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg REVISION=$(REVISION) .
	$(PUSH:%=$(DOCKER) push $(image))

kind: images  ## Kubeflow Pipelines, Katib and Kondense in a new cluster on this machine
	manifests/overlays/kind/up $(TAG)

clean:  ## remove what the build made (keeps runs/ and .cache/)
	rm -rf .venv .tools build dist .mypy_cache .ruff_cache .import_linter_cache
