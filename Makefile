# Everything sets itself up in .venv; a fresh machine needs Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test test-slow check format stubs bench docs wheel mpc clean

help:
	@echo "make demo       the whole path on this machine, 1,000 diagnosis texts, encrypted and secret-shared"
	@echo "make test       the test suite (under ten minutes on two cores)"
	@echo "make check      formatting, types, layers, messages"
	@echo "make bench      what encrypted inference costs here, against plaintext"
	@echo "make mpc        adds CrypTen, for its comparison protocols (torch: up to gigabytes)"
	@echo "make test-slow  the tests that take longer"
	@echo "make docs       the documentation as a site: build/site/index.html"
	@echo "make wheel      a wheel in dist/"
	@echo "make format     format the sources     make stubs  generate secure_infer/v1 from protos/"

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv

# One environment is one pip call: grpc and protobuf packages drift apart otherwise.
.venv/run.stamp: .venv/bin/pip pyproject.toml constraints.txt
	@echo "setting up .venv (once)"
	$(PIP) --editable '.[server,text]'
	@touch $@

# The tests take CrypTen, and so torch. Where torch brings gigabytes, `make test EXTRAS=server,text,dev,docs` goes without: the
# tests that need them are skipped, and say so.
EXTRAS := server,text,dev,docs,mpc

.venv/dev.stamp: .venv/bin/pip pyproject.toml constraints.txt
	@echo "setting up .venv for development (once)"
	$(PIP) --editable '.[$(EXTRAS)]'
	$(if $(findstring mpc,$(EXTRAS)),$(PIP) --no-deps crypten==0.4.1)
	@touch .venv/run.stamp $(if $(findstring docs,$(EXTRAS)),.venv/docs.stamp) $@

.venv/docs.stamp: .venv/bin/pip pyproject.toml constraints.txt
	@echo "setting up .venv for the documentation (once)"
	$(PIP) --editable '.[docs]'
	@touch $@

# CrypTen's own metadata asks for a package that refuses to build: hence --no-deps, after the extra that brings what it needs.
mpc: .venv/bin/pip
	$(PIP) --editable '.[server,text,mpc]'
	$(PIP) --no-deps crypten==0.4.1

demo: .venv/run.stamp
	@$(BIN)/secure-infer demo --scheme both

test: .venv/dev.stamp
	$(BIN)/pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: .venv/dev.stamp
	$(BIN)/pytest -m slow

bench: .venv/run.stamp
	@$(BIN)/secure-infer bench

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy secure_infer client server benchmarks
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(MAKE) --no-print-directory stubs OUT=build/stubs
	diff -r -x __init__.py -x __pycache__ build/stubs/secure_infer/v1 secure_infer/v1
	diff -r -x __init__.py -x __pycache__ build/stubs/$(FOREIGN) $(FOREIGN)

# Stubs of the public protocol that the server speaks besides its own.
FOREIGN := server/secure_infer_server/open_inference/v2

OUT := .
stubs: .venv/dev.stamp
	@mkdir -p $(OUT)/server
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT) --grpc_python_out=$(OUT) \
	  --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) protos/secure_infer/v1/*.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT)/server \
	  --mypy_out=quiet:$(OUT)/server protos/secure_infer_server/open_inference/v2/*.proto

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/dev.stamp
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf .venv build dist results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
