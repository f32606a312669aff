# k8sgu: every command a user or a developer needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv up down test lint bench bench-build

VENV := .venv
BIN := $(VENV)/bin

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20
	@printf '\n%s\n' 'K8SGU_LAB=<name> K8SGU_CLUSTER=<name> before up and down: another lab than default, another cluster than the inventory names (demo).'
	@printf '%s\n' '.venv/bin/python tools/run_tests.py <stage> ... runs some stages of the tests, .venv/bin/python tools/run_bench.py <word> ... some benchmarks.'
	@printf '%s\n' '.venv/bin/ec2lab --help is the lab alone. The playbooks, for the lab and for AWS, are in README.md.'

venv: ## the virtual environment .venv, with every tool the project needs, and the system packages of the lab
	@tools/venv

up: venv ## a whole Kubernetes cluster named demo in the lab, from nothing
	@tools/up

down: ## remove the demo cluster and its lab
	@tools/down

test: venv ## every test; ends in the line `N passed, N failed`
	@$(BIN)/python tools/run_tests.py

lint: venv ## the linters alone
	@$(BIN)/python tools/run_tests.py lint

bench: venv ## the benchmarks, with the numbers the project promises
	@$(BIN)/python tools/run_bench.py

bench-build: venv ## the build of a whole release from nothing on two cores, which takes 20 minutes and more
	@$(BIN)/python tools/run_bench.py mirror --from-nothing
