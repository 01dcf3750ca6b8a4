# Headgate. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NATIVE_STAMP := .venv/.installed-native
NATIVE_TRIED := .venv/.tried-native
NATIVE_SOURCES := $(wildcard native/src/*.rs native/src/python/*.rs native/Cargo.* native/pyproject.toml)
BENCH_STAMP := .venv/.installed-bench
CLIENTS_STAMP := tests/clients/node_modules/.package-lock.json
GO_STAMP := .build/clients/.installed
DEPLOY_STAMP := .venv/.installed-deploy
DEPLOY_TOOLS := .build/deploy/.installed
UV := .build/uv/bin/uv
TYPESCRIPT_STAMP := tests/clients/typescript/node_modules/.package-lock.json

# Where this variable is set, every process that a test starts would compile all modules of Headgate again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("headgate needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# Without its requirements: the compiler of an older protobuf works alone (docs/design/dependencies.md).
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps grpcio-tools
	touch $@

# The compiled core. `pip` gets maturin first, so that the build needs nothing else from the index.
$(NATIVE_STAMP): $(STAMP) $(NATIVE_SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt maturin
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --force-reinstall ./native
	touch $@

# Where cargo is, once for each change of the sources. If it cannot be built, none of an older build may be left.
$(NATIVE_TRIED): $(STAMP) $(NATIVE_SOURCES)
	@if command -v cargo >/dev/null && ! $(MAKE) --no-print-directory $(NATIVE_STAMP); then \
		echo 'warning: the compiled core was not built; Headgate runs without it (docs/native.md)' >&2; \
		rm -f $(NATIVE_STAMP); $(BIN)/python -m pip uninstall --quiet --yes headgate-native >/dev/null 2>&1 || true; \
	fi
	@touch $@

.PHONY: install
install: $(STAMP) $(NATIVE_TRIED) ## set up .venv with everything, also .venv/bin/headgate; the compiled core where cargo is

.PHONY: native
native: $(NATIVE_STAMP) ## build the compiled core; needs cargo 1.85 or newer (docs/native.md)

.PHONY: native-check
native-check: native ## format, lint and test the compiled core
	cd native && cargo fmt --check
	cd native && cargo clippy --quiet --locked --all-targets --features python -- -D warnings
	cd native && cargo test --quiet --locked

.PHONY: test-native-packages
test-native-packages: native ## install the compiled core's wheel and sources in new environments, and serve with each; needs cargo
	$(BIN)/python -m pytest tests/native/packages.py --durations=5

.PHONY: run
run: install ## run the service on the embedded store: REST on :8080, gRPC on :50051
	exec $(BIN)/headgate up

$(CLIENTS_STAMP): tests/clients/package.json tests/clients/package-lock.json
	npm ci --prefix tests/clients --ignore-scripts --no-audit --no-fund
	touch $@

.PHONY: clients
clients: $(CLIENTS_STAMP) ## install what receivers in JavaScript use; needs node and npm

# Each worker begins with a block of neighbouring tests, so that few of them start the servers that a module shares;
# who has done its block takes half of what another one still has.
SPREAD := --numprocesses auto --dist worksteal

# For targets that take long on purpose: no limit for each test (tests/support/limits.py).
ENDLESS := -o longest_phase=0 -o faulthandler_timeout=0

.PHONY: test
test: install clients ## run the tests: unit, contract, rpc, edge and faults, on real parts
	$(BIN)/python -m pytest $(SPREAD)

# Whole folders, so that no new test is forgotten. The tests of the other folders start servers of their own, which run
# the same code as these.
PURE_TESTS := tests/unit tests/contract tests/rpc

.PHONY: test-pure
test-pure: install ## run the tests of units, stores and RPC without the compiled core
	HEADGATE_PURE=1 $(BIN)/python -m pytest $(SPREAD) $(PURE_TESTS)

.PHONY: coverage
coverage: install clients ## run the same tests, and show the lines that none of them runs; takes a third longer
	$(BIN)/python -m pytest $(SPREAD) --cov --cov-report=term

$(GO_STAMP): tests/clients/go/go.mod tests/clients/go/go.sum
	mkdir -p .build/clients/bin
	cd tests/clients/go && GOBIN=$(CURDIR)/.build/clients/bin go install -ldflags='-s -w' tool
	touch $@

$(TYPESCRIPT_STAMP): tests/clients/typescript/package.json tests/clients/typescript/package-lock.json
	npm ci --prefix tests/clients/typescript --ignore-scripts --no-audit --no-fund
	touch $@

.PHONY: test-clients
test-clients: install $(GO_STAMP) $(TYPESCRIPT_STAMP) ## test clients in Go and TypeScript, grpcurl and ghz; needs go, node and npm
	$(BIN)/python -m pytest -o longest_phase=600 -o faulthandler_timeout=900 tests/clients/clients.py --durations=0

$(DEPLOY_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,deploy]'
	touch $@

$(DEPLOY_TOOLS): $(wildcard tests/deploy/go/go.* tests/deploy/go/compose/*.go)
	mkdir -p .build/deploy/bin
	cd tests/deploy/go && GOBIN=$(CURDIR)/.build/deploy/bin go install -ldflags='-s -w' tool ./compose
	touch $@

.PHONY: test-deploy
test-deploy: $(DEPLOY_STAMP) $(DEPLOY_TOOLS) ## test deploy/: the Dockerfile's steps, the Helm chart, compose; needs go
	$(BIN)/python -m pytest $(ENDLESS) tests/deploy/deploy.py --durations=5

.PHONY: drill
drill: install ## recover a PostgreSQL to a point in time, as docs/operations.md says
	$(BIN)/python -m pytest tests/contract/drill.py --durations=5

.PHONY: deploy-lock
deploy-lock: ## write the hashes of the container's packages again: deploy/requirements.txt, deploy/build.txt
	test -x $(UV) || { $(PYTHON) -m venv .build/uv && .build/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9; }
	$(UV) pip compile $(LOCK) pyproject.toml deploy/image.in --extra server --extra bridge --output-file deploy/requirements.txt
	$(UV) pip compile $(LOCK) deploy/build.in --output-file deploy/build.txt

# For each platform and every Python that is supported. The name of an index is not written, unless it is asked for.
LOCK := --quiet --constraint constraints.txt --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make deploy-lock'

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

.PHONY: bench-tools
bench-tools: $(BENCH_STAMP) ## install missing load tools: wrk from Debian, ghz from its Go module
	command -v wrk >/dev/null || apt-get install --yes --quiet wrk
	command -v ghz >/dev/null || [ -x $(BIN)/ghz ] || GOBIN=$(CURDIR)/$(BIN) go install github.com/bojand/ghz/cmd/ghz@v0.120.0

.PHONY: bench
bench: bench-tools ## measure everything, against the database's limit; takes half an hour, and 15 GB of temporary files
	$(BIN)/python -m bench.run all

.PHONY: bench-quick
bench-quick: bench-tools ## measure, within two minutes, what the ratios in bench/results/results.md need
	$(BIN)/python -m bench.run quick

PROMTOOL := .build/promtool/promtool

$(PROMTOOL):
	@# Ten minutes the first time: it is a part of Prometheus, with all of its parts.
	mkdir -p $(dir $@)
	cd $(dir $@) && GOBIN=$(CURDIR)/$(dir $@) go install github.com/prometheus/prometheus/cmd/promtool@v0.316.0

.PHONY: promtool
promtool: install $(PROMTOOL) ## check deploy/prometheus and the metrics of a running service with promtool; needs go
	$(BIN)/python -m pytest -v tests/unit/metrics/test_deploy.py tests/edge/test_metrics.py

.PHONY: dashboard
dashboard: $(BENCH_STAMP) ## draw docs/dashboard.svg again: the metrics of a service with two workers under load
	$(BIN)/python -m docs.dashboard docs/dashboard.svg

.PHONY: imports
imports: install ## draw docs/design/imports.svg again: which floors of the server import which
	$(BIN)/python docs/design/imports.py docs/design/imports.svg

.PHONY: faults
faults: install ## kill -9 the server 200 times on each store, under concurrent writers
	HEADGATE_KILLS=200 $(BIN)/python -m pytest $(ENDLESS) --numprocesses 2 tests/faults/test_kill.py

.PHONY: fuzz
fuzz: install ## compare the compiled core with Python for HEADGATE_FUZZ_SECONDS (3600), then fuzz REST and gRPC, HEADGATE_FUZZ (300) requests of each operation
	if [ -e $(NATIVE_STAMP) ]; then $(BIN)/python -m tests.native.fuzz --seconds $${HEADGATE_FUZZ_SECONDS:-3600}; fi
	HEADGATE_FUZZ=$${HEADGATE_FUZZ:-300} $(BIN)/python -m pytest $(ENDLESS) --numprocesses 2 --hypothesis-profile explore tests/edge/test_fuzz_*.py

.PHONY: soak-client
soak-client: install ## kill, freeze and overload a server for 20 minutes under clients that must lose nothing
	HEADGATE_SOAK=1200 $(BIN)/python -m pytest $(ENDLESS) -s tests/faults/test_client_soak.py

.PHONY: speed-client
speed-client: $(BENCH_STAMP) ## measure the client's buffer beside the stub, and streams of events beside calls; two minutes
	$(BIN)/python -m tests.client.speed 7 2

.PHONY: kill-import
kill-import: install ## import 1,000,000 lines, and kill -9 the import 50 times meanwhile
	HEADGATE_KILLS=50 HEADGATE_LINES=1000000 $(BIN)/python -m pytest $(ENDLESS) -s tests/client/test_import.py -k kills

.PHONY: test-client-versions
test-client-versions: install ## try the client with the oldest and newest grpcio and protobuf, on each Python of this machine
	$(BIN)/python -m tests.client.versions

.PHONY: check
check: lint proto-check envoy-check ## all checks except the tests

.PHONY: lint
lint: $(BENCH_STAMP) ## lint and type-check, the benchmark with its own packages included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: generate
generate: install ## regenerate generated/ from proto/
	$(BIN)/python -m headgate_bridge.generate

.PHONY: reference
reference: install ## write the program of the page /docs again, from its npm package; needs npm
	$(BIN)/python -m headgate_bridge.reference

.PHONY: proto-check
proto-check: install ## lint the protos, check for breaking changes, and check that generated/ is up to date
	$(BIN)/python -m headgate_bridge.generate --check
	mkdir -p .build
	$(BIN)/python -m headgate_bridge.generate --image .build/image.binpb
	$(BIN)/buf lint .build/image.binpb --config buf.yaml
	@# proto/released.binpb is an image of the protos of the last release.
	$(BIN)/buf breaking .build/image.binpb --against proto/released.binpb --config buf.yaml

.PHONY: envoy-check
envoy-check: install ## let the real Envoy validate envoy.yaml
	$(BIN)/envoy --mode validate --log-level error -c envoy.yaml

.PHONY: clean
clean: ## remove built files
	rm -rf .venv .build native/target tests/clients/node_modules tests/clients/*/node_modules tests/clients/*/gen .coverage* .mypy_cache .ruff_cache .hypothesis .schemathesis
