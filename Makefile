# kapso-sync: everything a contributor needs. Each target does its own set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: compiled demo test coverage unit thorough check bench fuzz release-check image-test network-test soak e2e-kubernetes docs pages screenshots clean lock format help
.DEFAULT_GOAL := help

help:            ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16

$(STAMP): pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# esbuild, locked, and what the tests take from npm. Where npm is missing, everything works but what must be built.
NODE_STAMP := node_modules/.installed
$(NODE_STAMP): package-lock.json
	@if command -v npm >/dev/null; then npm ci --ignore-scripts --no-audit --no-fund --silent && touch $(NODE_STAMP); \
	else echo "npm is not installed, so there is no esbuild: TypeScript and code with imports stay blocked"; fi

# The demo needs what a user needs, and no developer's tools; where those are installed already, they are used.
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
DEMO_STAMP := $(if $(wildcard $(STAMP)),$(STAMP),.venv-demo/.installed)
.venv-demo/.installed: requirements/run.txt
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/run.txt
	@touch $@

demo: $(DEMO_STAMP) $(NODE_STAMP)   ## show the main job: git in, running functions out (on a local emulator)
	@$(DEMO_VENV)/bin/python -m kapso_sync demo

# Hundreds of tests start the program. Where PYTHONDONTWRITEBYTECODE is set, each would compile all of it again.
compiled: $(STAMP)
	@$(BIN)/python -m compileall -q kapso_sync

test: compiled $(NODE_STAMP)   ## run every test
	$(BIN)/python -m pytest -n auto --dist worksteal

# Coverage has a target of its own: tracing makes the suite a third slower.
coverage: $(STAMP) $(NODE_STAMP) ## run every test, and print what they do not reach
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term

unit: compiled $(NODE_STAMP)   ## run what needs no process of its own and no long history, in under a minute
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not e2e and not history"

thorough: compiled $(NODE_STAMP) ## run the whole of what `check` runs a part of, such as each fault at each call
	$(BIN)/python -m pytest -n auto --dist worksteal --thorough -m thorough

check: $(STAMP) $(NODE_STAMP)  ## format, lint, types, import rules, then the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy deploy/release
	$(BIN)/lint-imports
	$(MAKE) test

bench: compiled $(NODE_STAMP)  ## print the benchmark table; BENCH="--only growth --runs 1" for a part of it
	$(BIN)/python -m benchmarks $(BENCH)

# The corpus grows in .fuzz from run to run. Atheris has wheels for Linux on x86-64; elsewhere the same inputs are made blindly.
FUZZ := $(VENV)/.fuzz-installed
$(FUZZ): $(STAMP) requirements/fuzz.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/fuzz.txt 2>/dev/null \
	|| echo "there is no atheris for this machine: inputs are made without looking at coverage"
	@touch $@

fuzz: $(FUZZ) $(NODE_STAMP)  ## try hostile inputs for MINUTES (5); TARGET=… for one kind, with INPUT=FILE to replay one
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),5) --target "$(TARGET)" --input "$(INPUT)"

# None is a part of `check`: they need docker, podman or buildah, an sshd, or Go for a kube-apiserver, whose build takes minutes once.
# Where that is missing, pytest says so and skips.
image-test: $(STAMP)     ## build the image and run it: read-only, foreign user, ssh, TypeScript, health, SIGTERM, 256 MB
	$(BIN)/python -m pytest -v tests/deploy/e2e_image.py

network-test: $(STAMP)   ## git sources over a real sshd and ssh-agent, on loopback
	$(BIN)/python -m pytest -v tests/sources/e2e_ssh.py

soak: $(STAMP)           ## three replicas, random deaths and pushes, for MINUTES (10)
	$(BIN)/python -m pytest -s tests/e2e/soak_replicas.py

e2e-kubernetes: $(STAMP) ## apply every manifest to a real kube-apiserver, with Go to build it
	$(BIN)/python -m pytest -v tests/deploy/e2e_kubernetes.py

# The tools of a release have an environment of their own: none of them is needed to run or to change the program.
RELEASE := .release/.installed
$(RELEASE): requirements/release.txt
	$(PYTHON) -m venv .release
	.release/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/release.txt
	@touch $@

release-check: $(RELEASE) ## build what a release publishes into dist/, and check all of it; SKIPS=--no-skips allows no skipped step
	.release/bin/python deploy/release/check.py --tools .release/bin $(SKIPS)

# Pages lie in the site as in the repository, so that the same links hold on both. Read it with: python3 -m http.server --directory .site/html
SITE := README.md CONTRIBUTING.md CODE_OF_CONDUCT.md SECURITY.md CHANGELOG.md LICENSE docs deploy functions.example
.venv-docs/.installed: requirements/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/docs.txt
	@touch $@

docs: $(STAMP) .venv-docs/.installed ## build the documentation site in .site/html; fail on a broken link or anything from outside
	rm -rf .site && mkdir -p .site/src && cp -R $(SITE) .site/src && mv .site/src/docs/zensical.toml .site
	.venv-docs/bin/zensical build --strict --config-file .site/zensical.toml
	$(BIN)/python -m tests.docs.site .site/html

pages: $(STAMP)          ## write again what the reference takes from the code: tables, commands, metrics, pictures
	$(BIN)/python -m tests.docs.tables
	$(BIN)/python -m tests.docs.pictures

screenshots: $(STAMP)    ## take the picture of the status page again (needs chromium)
	$(BIN)/python -m tests.docs.screenshots

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Kapso's CLI imports requests and packaging without asking for them.
lock:            ## pin every dependency again, with hashes (needs uv)
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --extra notify -o requirements/run.txt pyproject.toml
	uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 --extra notify --group dev -o requirements/dev.txt pyproject.toml
	echo 'zensical==0.0.73' | uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/docs.txt -
	printf 'kapso==0.4.0\nrequests\npackaging\noctodns==1.22.0\n' | uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/bench.txt -
	printf 'build\ncyclonedx-bom\nhatchling==1.33.0\npip-audit\npre-commit\ntwine\nwheel\nzizmor\n' | uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/release.txt -
	grep -o 'hatchling==[0-9.]*' pyproject.toml | head -1 | uv pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 -o requirements/build.txt -

clean:           ## remove what the targets above made
	rm -rf $(VENV) .venv-demo .venv-docs .site .coverage* htmlcov dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache node_modules .fuzz .bench .release
