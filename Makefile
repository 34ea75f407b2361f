# litelambda: `make help` lists the targets. Nothing is needed but Python >= 3.11.4, make and PyPI.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
SAM_VENV := .venv-sam
EMULATOR_VENV := .venv-emulator
DOCS_VENV := .venv-docs
CHECKS_VENV := .venv-checks
NATIVE_VENV := .venv-native

.PHONY: help setup setup-sam demo test fuzz test-wheel check format docs lock package charts native clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.up-to-date  ## make the virtual environment .venv (skipped when up to date)

$(VENV)/.bootstrapped: requirements/bootstrap.txt
	@echo "setup: virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11, 4) <= v < (3, 14) else f"Python 3.11.4 or later, 3.12 or 3.13 is needed, this is {v[0]}.{v[1]}.{v[2]}: say make PYTHON=python3.13 setup")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Bytecode is compiled here once, so that the first command and every benchmark start from a warm cache.
$(VENV)/.up-to-date: $(VENV)/.bootstrapped requirements/dev.txt pyproject.toml
	@started=$$SECONDS; echo "setup: installing the locked toolchain (TensorFlow is large: some minutes on a first run)"; \
	$(UV) pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements/dev.txt; \
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .; \
	touch $@; echo "setup: done in $$((SECONDS - started)) s"

demo: setup  ## train on MNIST, quantize, verify, publish, serve and predict over HTTP
	@$(BIN)/python -m litelambda.cli.demo

test: setup  ## run the tests
	@started=$$SECONDS; $(BIN)/python -m pytest -q -n logical; echo "test: done in $$((SECONDS - started)) s"

fuzz: setup  ## run the property tests on other random examples, each time
	@$(BIN)/python -m pytest -q -n logical -m hypothesis --hypothesis-profile=others

test-wheel: setup  ## build the wheel, install it outside the checkout, and use it there
	@started=$$SECONDS; LITELAMBDA_TEST_WHEEL=1 $(BIN)/python -m pytest -q -n logical tests/e2e/test_wheel.py tests/e2e/test_wheel_build.py; \
	echo "test-wheel: done in $$((SECONDS - started)) s"

TEMPLATES := template.yaml $(wildcard infra/*.yaml)

# What ships first; dev.txt has all that the toolchain is made with.
AUDITED := functions scoring images text server dev

.PHONY: check-style check-types check-templates check-checkov check-advisories

check: check-style check-types check-templates check-checkov check-advisories  ## lint, format, type and security checks; with -j side by side
	@echo "check: ruff, mypy, cfn-lint and checkov have nothing to say"

check-style: setup
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet

check-types: setup
	@$(BIN)/mypy

check-templates: $(CHECKS_VENV)/.up-to-date
	@$(CHECKS_VENV)/bin/cfn-lint $(TEMPLATES)

check-checkov: $(CHECKS_VENV)/.up-to-date
	@$(CHECKS_VENV)/bin/checkov --quiet --compact --skip-download --framework cloudformation $(TEMPLATES:%=--file %)

check-advisories: setup $(CHECKS_VENV)/.up-to-date
	@$(BIN)/python requirements/advisories.py $(CHECKS_VENV)/bin/pip-audit $(AUDITED:%=requirements/%.txt)

$(CHECKS_VENV)/.up-to-date: requirements/checks.txt | $(VENV)/.up-to-date
	@echo "check: installing the locked cfn-lint, checkov and pip-audit in $(CHECKS_VENV)"
	@$(BIN)/python -m venv --clear --without-pip $(CHECKS_VENV)
	@$(UV) pip sync --quiet --python $(CHECKS_VENV)/bin/python --compile-bytecode --require-hashes $<
	@touch $@

format: setup  ## let ruff mend what it can
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

charts: setup  ## measure on this machine and draw the charts of the documentation; leave it idle meanwhile
	@$(BIN)/litelambda bench cold --peers --chart docs/images/cold-start.svg
	@$(BIN)/litelambda bench warm --chart docs/images/warm.svg

docs: setup $(DOCS_VENV)/.up-to-date  ## build the documentation's site in .site/
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet
	@$(BIN)/python docs/check_site.py .site
	@echo "docs: python3 -m http.server --directory .site shows the site"

$(DOCS_VENV)/.up-to-date: requirements/docs.txt | $(VENV)/.up-to-date
	@echo "docs: installing the locked mkdocs in $(DOCS_VENV)"
	@$(BIN)/python -m venv --clear --without-pip $(DOCS_VENV)
	@$(UV) pip sync --quiet --python $(DOCS_VENV)/bin/python --compile-bytecode --require-hashes requirements/docs.txt
	@touch $@

# Zig is a C compiler for both of Lambda's architectures that PyPI has; it makes the same bytes everywhere.
NATIVE := functions/litelambda_serving/native/native
NATIVE_FLAGS := -O2 -ffp-contract=off -shared -fPIC -s -Wall -Wextra -Werror

NATIVE_OUTPUT ?= $(dir $(NATIVE))

native: $(NATIVE_VENV)/.up-to-date  ## compile what is in C, for both architectures; the results are committed
	@for machine in x86_64 aarch64; do \
	  $(NATIVE_VENV)/bin/python -m ziglang cc -target $$machine-linux-gnu.2.17 $(NATIVE_FLAGS) \
	    -o "$(NATIVE_OUTPUT)/native-$$machine.so" $(NATIVE).c; \
	done
	@sha256sum $(NATIVE).c "$(NATIVE_OUTPUT)"/native-*.so | sed 's#  .*/#  #' > "$(NATIVE_OUTPUT)/native.sha256"

$(NATIVE_VENV)/.up-to-date: requirements/native.txt | $(VENV)/.up-to-date
	@echo "native: installing the locked zig in $(NATIVE_VENV)"
	@$(BIN)/python -m venv --clear --without-pip $(NATIVE_VENV)
	@$(UV) pip sync --quiet --python $(NATIVE_VENV)/bin/python --require-hashes $<
	@touch $@

clean:  ## remove what the targets here made, but for the models
	@rm -rf $(VENV) .venv-* .bench .site .aws-sam dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11

lock: $(VENV)/.bootstrapped  ## renew the locks in requirements/ from pyproject.toml
	$(LOCK) pyproject.toml --extra bench --extra build --extra jax --extra parquet --extra text --group dev -o requirements/dev.txt
	$(LOCK) pyproject.toml -c requirements/dev.txt -o requirements/base.txt
	$(LOCK) pyproject.toml --extra build -c requirements/dev.txt -o requirements/build.txt
	$(LOCK) --group pyproject.toml:functions --no-deps -o requirements/functions.txt
	$(LOCK) --group pyproject.toml:images -c requirements/dev.txt -o requirements/images.txt
	$(LOCK) --group pyproject.toml:scoring -c requirements/dev.txt -o requirements/scoring.txt
	$(LOCK) --group pyproject.toml:server -c requirements/dev.txt -o requirements/server.txt
	$(LOCK) --group pyproject.toml:text -c requirements/dev.txt --no-deps -o requirements/text.txt
	$(LOCK) --group pyproject.toml:docs -o requirements/docs.txt
	$(LOCK) --group pyproject.toml:checks -o requirements/checks.txt
	$(LOCK) --group pyproject.toml:native -o requirements/native.txt
	$(LOCK) --group pyproject.toml:sam -o requirements/sam.txt
	$(LOCK) --group pyproject.toml:emulator -o requirements/emulator.txt
	$(LOCK) --group pyproject.toml:page -o requirements/page.txt
	for client in $(CONTRACT_CLIENTS); do \
	  $(LOCK) --group pyproject.toml:contract-$$client -o requirements/contract-$$client.txt; \
	done
	$(LOCK) --group pyproject.toml:bench-litserve -o requirements/bench-litserve.txt
	$(LOCK) --group pyproject.toml:bench-mlserver -o requirements/bench-mlserver.txt
	$(LOCK) --group pyproject.toml:bench-onnxruntime -c requirements/dev.txt -o requirements/bench-onnxruntime.txt
	$(LOCK) --group pyproject.toml:bench-runtime-client -c requirements/dev.txt -o requirements/bench-runtime-client.txt
	$(LOCK) --group pyproject.toml:bench-tf2onnx -c requirements/dev.txt -o requirements/bench-tf2onnx.txt
	$(LOCK) --group pyproject.toml:bench-tflite-runtime -o requirements/bench-tflite-runtime.txt

# ---- contract: real clients, each in an environment of its own, against the service
CONTRACT_CLIENTS := triton perf-analyzer kserve ovmsclient mlserver schemathesis provenance
CONTRACT_VENVS := $(CONTRACT_CLIENTS:%=.venv-contract-%/.up-to-date)

.PHONY: test-contract

test-contract: setup $(CONTRACT_VENVS) $(NATIVE_VENV)/.up-to-date  ## tritonclient, perf_analyzer, KServe, ovmsclient, MLServer and schemathesis against the service; model_signing and validators of provenance
	@started=$$SECONDS; LITELAMBDA_TEST_CONTRACT=1 $(BIN)/python -m pytest -q -n logical tests/contract; \
	echo "test-contract: done in $$((SECONDS - started)) s"

.venv-contract-%/.up-to-date: requirements/contract-%.txt | $(VENV)/.up-to-date
	@echo "test-contract: installing the locked $* in .venv-contract-$*"
	@$(BIN)/python -m venv --clear --without-pip .venv-contract-$*
	@$(UV) pip sync --quiet --python .venv-contract-$*/bin/python --require-hashes $<
	@touch $@

# Its binary is Linux's alone, and for a newer C library than some systems have.
.venv-contract-perf-analyzer/.up-to-date: requirements/contract-perf-analyzer.txt tests/contract/newer-libraries | $(VENV)/.up-to-date
	@echo "test-contract: installing the locked perf-analyzer in $(@D)"
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python --require-hashes $< \
	  --python-platform $$(uname -m | sed s/arm64/aarch64/)-manylinux_2_38
	@tests/contract/newer-libraries $(CURDIR)/$(@D)/libraries || echo "test-contract: perf_analyzer cannot run here" >&2
	@touch $@

# ---- stores in other clouds: Azure's own emulator, which npm has
AZURITE := azurite@3.37.0
AZURITE_PORT := 10010

.PHONY: test-stores

test-stores: setup  ## publishing to Azurite, Azure's emulator, where there is npm
	@if ! command -v npm >/dev/null; then echo "test-stores: npm is not installed, so Azurite is not tried"; exit 0; fi; \
	npm install --silent --no-audit --no-fund --prefix .venv-azurite $(AZURITE); \
	.venv-azurite/node_modules/.bin/azurite-blob --silent --inMemoryPersistence --skipApiVersionCheck --blobPort $(AZURITE_PORT) & \
	trap "kill $$!" EXIT; \
	LITELAMBDA_TEST_AZURITE=http://127.0.0.1:$(AZURITE_PORT) $(BIN)/python -m pytest -q tests/unit/store/test_artifact_store.py -k "[az"

# ---- the page at /, in a real browser
PAGE_VENV := .venv-page

.PHONY: test-page

test-page: setup  ## the page at / in a real Chromium, where there is one
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then \
	  $(MAKE) --no-print-directory $(PAGE_VENV)/.up-to-date; \
	  started=$$SECONDS; LITELAMBDA_TEST_PAGE=1 $(BIN)/python -m pytest -q tests/page; \
	  echo "test-page: done in $$((SECONDS - started)) s"; \
	else \
	  echo "test-page: there is no Chromium here, so the page is not opened: install one, such as Debian's (apt-get install chromium)"; \
	fi

$(PAGE_VENV)/.up-to-date: requirements/page.txt | $(VENV)/.up-to-date
	@echo "test-page: installing the locked playwright and axe-core in $(PAGE_VENV)"
	@$(BIN)/python -m venv --clear --without-pip $(PAGE_VENV)
	@$(UV) pip sync --quiet --python $(PAGE_VENV)/bin/python --require-hashes $<
	@touch $@

# ---- all of them: continuous integration waits for their downloads at once
.PHONY: environments

OWN_VENVS := $(CHECKS_VENV) $(DOCS_VENV) $(SAM_VENV) $(EMULATOR_VENV) $(NATIVE_VENV)

environments: $(OWN_VENVS:%=%/.up-to-date) $(CONTRACT_VENVS)  ## make the virtual environments of the other targets; with -j side by side

# ---- deployment: what ships, and the SAM command line, which has an environment of its own
ARCH ?= arm64
WITH ?=
CUSTOM_CODE ?=
ACCESS_POLICY ?=
OWN = $(CUSTOM_CODE:%=--code "%") $(ACCESS_POLICY:%=--access-policy "%")
ARTIFACTS_DIR ?= $(error ARTIFACTS_DIR is set by sam build: say `sam build`, or `make package` for the zip alone)

.PHONY: build-PredictFunction build-ScoreFunction deploy deploy-scoring test-sam

package: setup  ## make the deployment package of ARCH=arm64|x86_64 in dist/, WITH=images or text, CUSTOM_CODE=FILE.py, ACCESS_POLICY=FILE.json
	@$(BIN)/litelambda package --arch $(ARCH) $(WITH:%=--with %) $(OWN) --output dist/$(ARCH)

# Called by `sam build` (BuildMethod: makefile): a copy of the bundle that `litelambda package` makes, no more and no less.
# In a folder of its own each time: `sam build --parallel` runs several of these at once.
build-PredictFunction: FUNCTION := predict $(WITH:%=--with %)
build-ScoreFunction: FUNCTION := score
build-PredictFunction build-ScoreFunction: setup
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/litelambda package $(OWN) --function $(FUNCTION) --arch $(ARCH) --output "$$folder"; \
	mkdir -p "$(ARTIFACTS_DIR)"; cp -R -p "$$folder/function/." "$(ARTIFACTS_DIR)"

setup-sam: $(SAM_VENV)/.up-to-date  ## make the SAM command line's environment .venv-sam (skipped when up to date)

$(SAM_VENV)/.up-to-date: requirements/sam.txt | $(VENV)/.up-to-date
	@echo "setup-sam: installing the locked SAM command line in $(SAM_VENV)"
	@$(BIN)/python -m venv --clear $(SAM_VENV)
	@$(UV) pip sync --quiet --python $(SAM_VENV)/bin/python --compile-bytecode --require-hashes requirements/sam.txt
	@touch $@

# Both take PARAMETERS="Name=value …"; a parameter that is not named keeps the value of the last deployment.
deploy: STACK ?= litelambda
deploy: FUNCTION := predict
deploy: setup-sam  ## package and deploy: make deploy MODEL=fruit PARAMETERS="MemorySize=1024"
deploy-scoring: STACK ?= litelambda-scoring
deploy-scoring: FUNCTION := score
deploy-scoring: setup-sam  ## the same for the batch stack: PARAMETERS="ModelStore=s3://… ModelName=…"
deploy deploy-scoring:
	@set -f; PATH="$(CURDIR)/$(SAM_VENV)/bin:$$PATH" \
	  $(BIN)/litelambda deploy $(OWN) --function $(FUNCTION) --stack $(STACK) $(TAGS:%=--tag %) $(MODEL) $(PARAMETERS)

# On Lambda's Python, which the package is for: one that is here, or else uv fetches it. Without it those tests are skipped.
$(EMULATOR_VENV)/.up-to-date: requirements/emulator.txt | $(VENV)/.up-to-date
	@echo "test-sam: installing the locked emulator in $(EMULATOR_VENV)"
	@found=$$($(BIN)/python -c 'from litelambda.common.interpreters import find_interpreter as find; print(getattr(find("3.13"), "path", "3.13"))'); \
	if $(UV) venv --quiet --clear --python "$$found" $(EMULATOR_VENV); then \
	  $(UV) pip sync --quiet --python $(EMULATOR_VENV)/bin/python --compile-bytecode --require-hashes requirements/emulator.txt; \
	  touch $@; \
	else \
	  echo "test-sam: there is no CPython 3.13 and none can be fetched: the stacks are not tried on the emulator"; \
	fi

# Its middle part needs a Docker engine: infra/local-image/README.md.
test-sam: setup-sam $(EMULATOR_VENV)/.up-to-date  ## sam validate, build, local invoke and start-api; both stacks on an emulator; both images
	@LITELAMBDA_TEST_SAM=1 infra/local-image/with-engine $(BIN)/python -m pytest -q -n logical tests/e2e/test_sam.py tests/e2e/test_sam_local.py tests/e2e/test_rie.py tests/e2e/test_score_rie.py tests/e2e/test_stacks.py tests/e2e/test_image.py
