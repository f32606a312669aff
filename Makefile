# k8sgu: every command a user or a developer needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv up down test lint docs bench bench-build

VENV := .venv
BIN := $(VENV)/bin

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@printf '\n%s\n' 'To use another lab than default or another cluster than demo, put K8SGU_LAB=<name> or K8SGU_CLUSTER=<name> before make up and make down.'
	@printf '%s\n' 'To run some stages of the tests: .venv/bin/python tools/run_tests.py <stage>... Some benchmarks: .venv/bin/python tools/run_bench.py <word>...'
	@printf '%s\n' 'To use the lab alone: .venv/bin/ec2lab --help. README.md explains the playbooks, for the lab and for AWS.'

venv: ## create the virtual environment .venv with every tool the project needs, and install the lab's system packages
	@tools/venv

up: venv ## build a whole Kubernetes cluster named demo in the lab
	@tools/up

down: ## remove the demo cluster and its lab
	@tools/down

test: venv ## run every test; the last line says `N passed, N failed`
	@$(BIN)/python tools/run_tests.py

lint: venv ## run the linters alone
	@$(BIN)/python tools/run_tests.py lint

docs: venv ## build the documentation site in .cache/docs/html
	@$(BIN)/python tools/docs_site.py

bench: venv ## run the benchmarks and compare them with the numbers the project promises
	@$(BIN)/python tools/run_bench.py

bench-build: venv ## time the build of a whole release from source; takes 20 minutes or more on two cores
	@$(BIN)/python tools/run_bench.py mirror --from-nothing
