# For people's habits; the work is in the scripts and the CMake presets.
.PHONY: all build demo test test-sanitize bench format lint clean
.NOTPARALLEL:

all: build

build:  ## build/puzzle
	@tools/setup.sh
	@tools/build.sh release

demo:  ## a child of SmolLM2, end to end, about half an hour
	@./demo.sh

test:  ## everything that CI runs
	@./test.sh

test-sanitize:  ## layers above the torch line under AddressSanitizer and UBSan
	@tools/setup.sh
	@tools/build.sh asan
	@ctest --test-dir build-asan -j "$$(nproc)" --output-on-failure --no-tests=error

bench:  ## timings; needs an idle machine
	@tools/setup.sh --with-tests --with-parent --with-corpus
	@tools/build.sh bench
	@.venv/bin/python bench/forward_vs_transformers.py
	@.venv/bin/python bench/tokenizer_vs_hugging_face.py
	@.venv/bin/python bench/score_methods.py
	@for program in build/bench/bench_*; do \
	  case "$$program" in *_forward | *_tokenizer | *_long_text) continue ;; esac; \
	  if [ -x "$$program" ] && [ -f "$$program" ]; then \
	    echo "== $$program"; OMP_WAIT_POLICY=PASSIVE "$$program" || exit 1; fi; done

format:
	@tools/setup.sh --with-lint
	@tools/format.sh

lint:
	@tools/setup.sh --with-lint
	@tools/format.sh --check
	@tools/lint.sh

clean:
	rm -rf build build-dev build-asan build-lint
