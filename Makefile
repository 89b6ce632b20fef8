# Each target sets up what it needs; a second run starts at once.
PYTHON := .venv/bin/python

.PHONY: help install demo test test-package test-vm check bench fuzz fleet deb lock

help:
	@echo "make demo     set everything up, then show one machine let in and one refused"
	@echo "make test     set everything up, then run the tests (six to ten minutes)"
	@echo "make test-vm  boot a small Debian with Secure Boot in QEMU, seven times (a quarter of an hour)"
	@echo "make test-package  try the Debian package's life on a clean Debian with systemd (up to six minutes)"
	@echo "make check    ruff and mypy"
	@echo "make bench    measure against bare cryptography, as ratios"
	@echo "make fuzz     a million hostile inputs for every parser (ARGS='--rounds N TARGET' for fewer)"
	@echo "make fleet    cut the power of many software TPMs with their agents (ARGS='--agents N')"
	@echo "make deb      build the Debian package into .cache/deb"
	@echo "make install  only set up: Debian's packages, .venv, the attestd command"
	@echo "make lock     pin the dependencies anew (ARGS=--upgrade takes newer ones)"

install:
	@scripts/setup

demo: install
	@scripts/demo

test: install
	@$(PYTHON) -m pytest -n 2 --dist loadfile --durations=10

test-vm: install
	@$(PYTHON) -m scripts.vm $(ARGS)

test-package: install
	@$(PYTHON) -m pytest tests/package_life.py -q -s

check: install
	@.venv/bin/ruff check .
	@.venv/bin/mypy

bench: install
	@$(PYTHON) -m scripts.bench $(ARGS)

fuzz: install
	@$(PYTHON) -m scripts.fuzz $(ARGS)

fleet: install
	@$(PYTHON) -m scripts.fleet $(ARGS)

deb: install
	@scripts/debian/build

lock: install
	@scripts/lock $(ARGS)
