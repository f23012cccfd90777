# Every target does the set-up that it needs: Debian packages, .venv, C++ build.
PYTHON ?= python3
ARGS ?=

export PATH := $(CURDIR)/.venv/bin:$(PATH)

CPP_FILES = $(shell find csrc tests examples benchmarks -name '*.cpp' -o -name '*.h')
BENCHMARKS = $(subst _,-,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py)))

.PHONY: help setup setup-bench build build-bench demo demo-cpp publish-demo test test-sanitize test-valgrind fuzz bench docs format lint clean

help:
	@echo 'make demo            train, convert and run a real model; results in build/demo (ARGS=--quick: under a minute)'
	@echo 'make demo-cpp        the same in C++ alone; results in build/demo-cpp (ARGS=--quick: about a minute)'
	@echo 'make publish-demo    make demo, then its results into README and docs'
	@echo 'make test            C++ and Python tests'
	@echo 'make test-sanitize   C++ tests under the address and undefined-behaviour sanitizers; SANITIZE=thread: under the thread'
	@echo '                     sanitizer (parallel regions then run on std::threads, which it sees: tests/cpp/openmp_on_threads.cpp)'
	@echo 'make test-valgrind   some C++ tests under valgrind'
	@echo 'make fuzz            the loader of programs under libFuzzer, for FUZZ_SECONDS (900)'
	@echo 'make bench           all benchmarks, results in build/bench; make bench-NAME for one: $(BENCHMARKS)'
	@echo '                     make publish-bench-NAME puts its results into docs'
	@echo 'make docs            the reference of the C++ interface (Doxygen), in build/docs/html'
	@echo 'make build           set everything up and build, into .venv and python/qatx'
	@echo 'make format          format C++ and Python'
	@echo 'make lint            check formatting, lint and types'
	@echo 'make clean           remove all that was built, but .venv and .venv-bench'
	@echo 'PYTHON=python3.12    the interpreter for .venv; ARGS=... is handed to the demo, the benchmark or pytest'

setup:
	@tools/setup.sh $(PYTHON)

# build_ext compiles what has changed, in the open; pip adds the metadata and the link from .venv to python/qatx.
build: setup
	python setup.py -q build_ext --inplace
	@$(MAKE) --silent .venv/.qatx-installed

.venv/.qatx-installed: pyproject.toml setup.py .venv/.qatx-setup
	python -m pip install -qq --no-build-isolation --no-deps --editable .
	@touch $@

demo: build
	python examples/python/fashion_mnist.py --out build/demo $(ARGS)

# Without the Debian package of Fashion-MNIST it takes scikit-learn's digits, as make demo does.
demo-cpp: build
	@test -d /usr/share/datasets/fashion-mnist || python examples/cpp/write_digits.py build/demo-cpp/digits
	build/cmake/bin/train_qat --out build/demo-cpp $(ARGS) \
	  $(if $(wildcard /usr/share/datasets/fashion-mnist),,--data build/demo-cpp/digits --no-mirror)
	python examples/cpp/load_into_python.py build/demo-cpp

publish-demo: demo
	python tools/publish_demo.py

test: build
	ctest --test-dir build/cmake --verbose --no-tests=error
	python -m pytest $(ARGS)

# One folder for each set of sanitizers.
SANITIZE ?= address,undefined
comma := ,
test-sanitize: SANITIZE_BUILD = build/sanitize-$(subst $(comma),-,$(SANITIZE))
test-sanitize: setup
	cmake -S . -B $(SANITIZE_BUILD) -G Ninja -DPython_EXECUTABLE="$(CURDIR)/.venv/bin/python" \
	  -DQATX_SANITIZE=$(SANITIZE) -DQATX_BUILD_EXAMPLES=OFF
	cmake --build $(SANITIZE_BUILD) --target qatx_tests
	ctest --test-dir $(SANITIZE_BUILD) --verbose --no-tests=error --timeout 7200

# What runs in a few minutes under memcheck. With the reference kernels: the others read a little behind what they need and
# multiply that by zero, and memcheck takes such products for undefined. One thread: it runs one at a time.
VALGRIND_TESTS = ProgramTest.*:RecordingTest.*:GraphStateTest.*:ConvertModelTest.*-*ManyThreads*
test-valgrind: build
	@command -v valgrind >/dev/null || { echo 'error: valgrind is missing; run as root: apt-get install valgrind' >&2; exit 1; }
	QATX_MAX_ISA=reference OMP_NUM_THREADS=1 GTEST_BRIEF=1 valgrind --quiet --error-exitcode=1 \
	  --suppressions=tests/cpp/valgrind.supp build/cmake/bin/qatx_tests \
	  --gtest_filter='$(VALGRIND_TESTS)'

# libFuzzer with the address and undefined-behaviour sanitizers, for FUZZ_SECONDS; starts from the seeds that earlier
# runs have found, and adds to them in build/fuzz/corpus.
FUZZ_SECONDS ?= 900
fuzz: setup
	@tools/setup_fuzz.sh
	cmake -S tests/fuzz -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DPython_EXECUTABLE="$(CURDIR)/.venv/bin/python"
	cmake --build build/fuzz
	tar -C build/fuzz -xzf tests/fuzz/corpus.tar.gz
	cd build/fuzz && ./fuzz_program -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -max_len=4096 -print_final_stats=1 corpus $(ARGS)

# Peers have an environment of their own: what they need does not always go with what qatx is developed with.
setup-bench: setup
	@tools/setup_bench.sh

bench: $(BENCHMARKS:%=bench-%)

build-bench: build
	@cmake -S . -B build/cmake -DQATX_BUILD_BENCHMARKS=ON >/dev/null
	cmake --build build/cmake

bench-%: build-bench setup-bench
	.venv-bench/bin/python benchmarks/$(subst -,_,$*).py --out build/bench/$*.json $(ARGS)

publish-bench-%: bench-%
	.venv-bench/bin/python benchmarks/_publish.py $*

docs:
	@tools/build_docs.sh

format: setup
	clang-format -i $(CPP_FILES)
	ruff check --quiet --fix --exit-zero
	ruff format

lint: setup
	clang-format --dry-run --Werror $(CPP_FILES)
	ruff format --check
	ruff check
	mypy

clean:
	rm -rf build dist python/qatx.egg-info
	rm -rf $(addprefix python/qatx/,_C.*.so _build_info.py include lib share)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
