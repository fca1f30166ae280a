# Each target is a script that also runs without make; each makes what it needs.
.PHONY: demo test check e2e e2e-clouds fuzz bench

demo: ## a virtual machine with an engine, and a container on it
	@scripts/demo

test: ## check, unit tests, tests on real hosts
	@scripts/test

check: ## lint, format, types, layers, shell scripts
	@scripts/check

e2e: ## only the tests on real hosts
	@scripts/e2e

e2e-clouds: ## only the tests on real clouds that run on this computer
	@scripts/e2e-clouds

fuzz: ## kill commands in many more ways than `test` does
	@scripts/fuzz

bench: ## how fast it is, as ratios
	@scripts/bench
