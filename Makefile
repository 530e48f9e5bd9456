# Everything sets itself up in .venv; a fresh machine needs Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test test-slow check format stubs bench wheel clean

help:
	@echo "make demo       the whole path on this machine: server, client, 1,000 diagnosis texts"
	@echo "make test       the test suite (about ten minutes on two cores)"
	@echo "make check      formatting, types, layers, messages"
	@echo "make bench      what encrypted inference costs here, against plaintext"
	@echo "make test-slow  the tests that take longer"
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

.venv/dev.stamp: .venv/bin/pip pyproject.toml constraints.txt
	@echo "setting up .venv for development (once)"
	$(PIP) --editable '.[server,text,dev]'
	@touch .venv/run.stamp $@

demo: .venv/run.stamp
	@$(BIN)/secure-infer demo

test: .venv/dev.stamp
	$(BIN)/pytest -m "not slow"

test-slow: .venv/dev.stamp
	$(BIN)/pytest -m slow

bench: .venv/run.stamp
	@$(BIN)/secure-infer bench

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy secure_infer client server benchmarks
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(MAKE) --no-print-directory stubs OUT=build/stubs
	diff -r -x __init__.py -x __pycache__ build/stubs/secure_infer/v1 secure_infer/v1

OUT := .
stubs: .venv/dev.stamp
	@mkdir -p $(OUT)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(OUT) --grpc_python_out=$(OUT) \
	  --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) protos/secure_infer/v1/*.proto

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/dev.stamp
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf .venv build dist results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
