# `make demo` and `make test` each set up what they need in $(VENV), and do no work twice.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check docs clean

demo: $(VENV)/installed
	$(VENV)/bin/python -m pair_pkg pipeline recipes/demo.yaml

test: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed-docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html -c docs . site
	@echo written: site/docs/index.html

clean:
	rm -rf $(VENV) runs site

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(INSTALL) --editable '.[test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) --editable '.[docs]'
	touch $@
