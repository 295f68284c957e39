# make up: everything on this machine. INVENTORY=inventory/mine for a lab, ARGS for ansible-playbook's own options.
SHELL := /bin/bash
INVENTORY ?= inventory/local
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: up status down test lint bench lock control dev

up status down: control
	ansible-playbook -i $(INVENTORY) playbooks/$@.yml $(if $(PURGE),-e posture_purge=true) $(ARGS) </dev/null

test: dev
	ansible-playbook -i inventory/local tests/packages.yml </dev/null && pytest -n 2 tests/unit tests/integration
	cd extensions && molecule test --scenario-name default </dev/null

lint: dev
	ruff check && ruff format --check && mypy && yamllint . && ansible-lint --offline && antsibull-changelog lint
	tests/sanity/run

bench: dev
	python -m tests.bench $(ARGS)

lock: dev
	for part in analyzer publisher control dev; do uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 $$(printf -- '--overrides %s ' $$(ls requirements/overrides.txt requirements/$$part.overrides.txt 2>/dev/null)) requirements/$$part.in --output-file requirements/$$part.txt $(ARGS) || exit; done

control dev:
	@scripts/bootstrap $@
