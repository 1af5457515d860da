# The commands of the project; `make help` lists them. Only Python 3.11 or newer, make and git are needed:
# everything else is installed, in locked versions, into .venv and its neighbours in this folder.

# The first of these that is new enough and can make virtual environments.
SUITABLE = $(shell for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14); do \
	"$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
INSTALL = $(or $(SUITABLE),$(error $(NO_PYTHON))) tools/install.py

define NO_PYTHON
No Python 3.11 or newer with its venv module was found. \
Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python3), \
or name yours: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)
endef

BIN := .venv/bin
STUBS := clients/python
PROTOC = .venv-proto/bin/python -m grpc_tools.protoc -Iprotos
SERVICES := protos/modelrouter/v1/service.proto
# A test that swallows its cancellation outlives the signal of its timeout; ending its process does not fail.
TIMEOUT := --timeout-method thread

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test test-oldest test-vllm test-kinds soak faults guard bench bench-full bench-vllm bench-peers check proto check-proto \
	docs prices check-docs check-go baseline lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

run: .venv/.server ## install what is needed and start the server; ARGS="--config FILE" is handed on
	@exec $(BIN)/router-server serve $(ARGS)

test: test-oldest .venv/.dev ## run every test
	$(BIN)/pytest -n 2 $(TIMEOUT) $(ARGS)

test-oldest: .venv-oldest/.done ## run the tests of the client and the contract on the oldest libraries allowed
	.venv-oldest/bin/modelrouter --help >/dev/null
	.venv-oldest/bin/pytest -p no:cacheprovider $(TIMEOUT) tests/client tests/contract

test-vllm: .venv/.dev .venv-vllm/.done ## run the tests with real vLLM on the CPU: some minutes, 2.5 GB of disk, 8 GB of memory
	$(BIN)/pytest -m vllm --timeout 600 $(TIMEOUT) tests/vllm $(ARGS)

test-kinds: .venv-kinds/.done ## run the tests of the kinds litellm and sentence-transformers: 1.8 GB of disk
	.venv-kinds/bin/pytest -m kinds --timeout 300 $(TIMEOUT) tests/kinds $(ARGS)

soak: .venv/.dev ## run the long tests, which `make test` leaves out
	$(BIN)/pytest -m soak --timeout 3600 $(ARGS)

faults: .venv/.dev ## do the sixteen faults with the true times, and print what came of each: a minute and a half
	$(BIN)/python -m tests.faults

guard: .venv/.dev ## fail where a unary call costs more than 1.6 of the bare pipeline's: half a minute
	$(BIN)/python -m bench.guard

bench: .venv/.dev .venv-bench/.done ## measure everything that is promised of speed: ten minutes; see bench/README.md
	$(BIN)/python -m bench $(ARGS); status=$$?; .venv-bench/bin/python bench/plot.py && exit $$status

bench-full: ## the same, longer, with a million calls
	$(MAKE) bench ARGS="--full $(ARGS)"

bench-vllm: .venv/.dev .venv-vllm/.done ## measure what the router adds before real vLLM on the CPU: five minutes; see docs/vllm.md
	$(BIN)/python -m bench.vllm $(ARGS)

bench-peers: .venv-litellm/.done ## install the gateways that `make bench` compares with: LiteLLM and Portkey
	npm ci --prefix bench/peers --no-audit --no-fund

check: .venv/.dev check-proto check-docs ## run every check that is not a test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/baseline.binpb

docs: .venv/.dev ## bring the generated parts of docs/ up to date
	$(BIN)/python -m router_server.providers.matrix --write
	$(BIN)/python -m router_server.config.key_table docs/configuration.md

prices: .venv/.dev ## write the table of published prices anew, from what genai-prices says
	$(BIN)/python -m router_server.price_list

check-docs: .venv/.dev ## check that the generated parts of docs/ are what `make docs` writes
	$(BIN)/python -m router_server.providers.matrix --check
	mkdir -p build && cp docs/configuration.md build
	$(BIN)/python -m router_server.config.key_table build/configuration.md
	diff docs/configuration.md build/configuration.md

proto: .venv-proto/.done ## generate the Python stubs from protos/
	mkdir -p $(STUBS)
	$(PROTOC) --python_out=$(STUBS) --pyi_out=$(STUBS) protos/modelrouter/v1/*.proto
	$(PROTOC) --plugin=.venv-proto/bin/protoc-gen-mypy_grpc \
		--grpc_python_out=$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(SERVICES)

check-proto: ## check that the committed stubs are what `make proto` writes
	rm -rf build/stubs
	$(MAKE) proto STUBS=build/stubs
	diff -r -x __init__.py -x __pycache__ build/stubs/modelrouter/v1 clients/python/modelrouter/v1

check-go: .venv-proto/.done ## check that the Go plugins (protoc-gen-go, protoc-gen-go-grpc) take the contract
	rm -rf build/go && mkdir -p build/go
	$(PROTOC) --go_out=build/go --go-grpc_out=build/go protos/modelrouter/v1/*.proto

baseline: .venv/.dev ## at a release: make the contract as it is now the one that must not break
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/buf build --exclude-source-info -o protos/baseline.binpb

lock: ## resolve the newest versions and write them into requirements/
	$(or $(SUITABLE),$(error $(NO_PYTHON))) tools/lock.py

clean: ## remove everything that was installed, generated or cached here
	rm -rf .venv .venv-proto .venv-oldest .venv-vllm .venv-kinds .venv-bench .venv-litellm
	rm -rf build dist *.egg-info clients/node/node_modules clients/node/generated bench/peers/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is installed again when what it is made of has changed.
.venv/.server: pyproject.toml requirements/locked.txt tools/install.py
	@$(INSTALL) server
	@touch $@

.venv/.dev: .venv/.server
	@$(INSTALL) dev
	@touch $@

.venv-proto/.done: requirements/proto.txt tools/install.py
	@$(INSTALL) proto
	@touch $@

.venv-bench/.done: requirements/bench.txt tools/install.py
	@$(INSTALL) bench
	@touch $@

.venv-litellm/.done: requirements/bench-litellm.txt tools/install.py
	@$(INSTALL) litellm
	@touch $@

.venv-oldest/.done: pyproject.toml requirements/oldest.txt tools/install.py
	@$(INSTALL) oldest
	@touch $@

.venv-kinds/.done: pyproject.toml requirements/torch-cpu.txt requirements/kinds.txt tools/install.py
	@$(INSTALL) kinds
	@touch $@

.venv-vllm/.done: requirements/torch-cpu.txt requirements/vllm.txt tools/install.py
	@$(INSTALL) vllm
	@touch $@
