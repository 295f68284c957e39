# make up: everything on this machine. INVENTORY=inventory/mine for a lab, ARGS for ansible-playbook's own options.
SHELL := /bin/bash
INVENTORY ?= inventory/local
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: up status loads offload down build test test-python test-roles lab lab-down lab-packages test-lab test-fresh lint audit bench lock control dev

up status loads offload down build: control
	ansible-playbook -i $(INVENTORY) playbooks/$@.yml $(if $(PURGE),-e posture_purge=true) $(ARGS) </dev/null

# Both at once, for each waits a lot; each is shown when it ends.
test: dev
	ansible-playbook -i inventory/local tests/packages.yml </dev/null
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going test-python test-roles

# The tests time real servers, and a busy machine is late at times: a failed one is run once more, and the summary names it (R).
test-python: dev
	pytest -n 2 --reruns 1 -rR tests/unit tests/integration

test-roles: dev
	cd extensions && molecule test --scenario-name default </dev/null

lab: dev
	python -m tests.lab up

lab-down: dev
	python -m tests.lab down

lab-packages: dev
	@[ "$$(id -u)" = 0 ] || { echo "The lab needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
	ansible-playbook -i inventory/local tests/lab/packages.yml </dev/null

test-lab: lab-packages
	pytest -o timeout_func_only=true --reruns 1 -rR --durations=10 tests/lab --ignore=tests/lab/test_fresh.py

test-fresh: lab-packages
	pytest -o timeout_func_only=true tests/lab/test_fresh.py

lint: dev
	ruff check && ruff format --check && mypy && yamllint . && ansible-lint --offline && antsibull-changelog lint
	tests/sanity/run

audit: control
	scripts/audit

bench: dev
	python -m tests.bench $(ARGS)

lock: dev
	for part in analyzer publisher publisher-v4l2 offloader build audit control dev; do uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 $$(printf -- '--overrides %s ' $$(ls requirements/overrides.txt requirements/$$part.overrides.txt 2>/dev/null)) requirements/$$part.in --output-file requirements/$$part.txt $(ARGS) || exit; done

control dev:
	@scripts/bootstrap $@
