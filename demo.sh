#!/usr/bin/env bash
# Set-up, build, and the main job: a faster child of SmolLM2-135M-Instruct for llama.cpp on this machine.
# Takes under 40 minutes on 2 cores. Run it again to go on after an interruption. DEMO=long compares the
# children after equal global distillation as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

options=("$@")
case ${DEMO:-} in
  '') ;;
  long) options+=(--set compare_distilled=true) ;;
  *)
    echo "demo: DEMO is '$DEMO', expected long or nothing" >&2
    exit 2
    ;;
esac

tools/setup.sh --with-server --with-parent --with-corpus
tools/build.sh release puzzle

export OMP_WAIT_POLICY=PASSIVE
build/puzzle plan recipes/smollm2-cpu.yaml "${options[@]}"
build/puzzle run recipes/smollm2-cpu.yaml "${options[@]}"
echo
echo "report:  runs/smollm2-cpu/report.html"
echo "child:   runs/smollm2-cpu/exports/child.gguf  (any llama.cpp: llama-cli -m …)"
echo
echo "The child goes on with: The quick way to sort a list in Python is"
build/puzzle generate runs/smollm2-cpu/children/child --prompt "The quick way to sort a list in Python is" --max-tokens 24
