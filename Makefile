# make demo   set up .venv without torch, render a synthetic street, fuse it
# make test   set up .venv-dev with torch, run the tests in two processes (WORKERS=4: in four)
# make dev    set up .venv-dev alone, with torch: for training, export and benchmarks
# make test-robot PYTHON=python3.10   tests without torch, on onnxruntime 1.23.2, OpenCV 4.9 and NumPy 1.26
# make test-robot PYTHON=python3.10 ROBOT_TESTS=tests/camera   or a part of them
# make check  ruff, mypy, import contracts
# make clean-room   install the wheel alone in a new environment, and verify the bundle in it there, without torch
# make clean-room BUNDLE=bundles/mine   or another
PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= 2
PIP_FLAGS = --quiet --disable-pip-version-check

.PHONY: demo dev test test-robot check wheel clean-room clean

demo: .venv/ready
	.venv/bin/python -m runtime.demo

dev: .venv-dev/ready

test: .venv-dev/ready
	.venv-dev/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

ROBOT_PINS = numpy==1.26.4 onnxruntime==1.23.2 opencv-python-headless==4.9.0.80
ROBOT_TESTS ?= tests
test-robot:
	$(PYTHON) -m venv build/robot/.venv
	build/robot/.venv/bin/pip install $(PIP_FLAGS) -e .[bags,openvino,report,serve,sign,benchmarks] $(ROBOT_PINS) hypothesis onnx pillow \
	    pytest pytest-xdist scikit-image
	build/robot/.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ROBOT_TESTS) --ignore tests/training --ignore tests/network --ignore tests/export

check: .venv-dev/ready
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/ruff check .
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports

wheel: .venv-dev/ready
	.venv-dev/bin/python -m build --wheel

clean-room: wheel
	rm -rf build/clean-room
	$(PYTHON) -m venv build/clean-room/.venv
	build/clean-room/.venv/bin/pip install $(PIP_FLAGS) "$$(ls -t dist/*.whl | head -n 1)"
	cd build/clean-room && .venv/bin/python -Ic 'import importlib.util as i; assert i.find_spec("torch") is None, "torch is here"'
	cd build/clean-room && env -u PYTHONPATH .venv/bin/cled-edge verify $(abspath $(BUNDLE)) --backend onnxruntime

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install $(PIP_FLAGS) -e .
	touch $@

# torch first and pinned. Where PyPI's torch brings CUDA and you have none, take the CPU build:
#   make dev TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
.venv-dev/ready: pyproject.toml
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/pip install $(PIP_FLAGS) $(TORCH)
	.venv-dev/bin/pip install $(PIP_FLAGS) -e .[train,export,dev]
	touch $@

clean:
	rm -rf .venv .venv-dev build dist demo
