#!/usr/bin/env bash
# Set up the environment, lint, check types, and run all tests on the default engine. If
# there is a Python for the other engine, run the files of $subset on it first.
#
#   bash tests/run.sh [--all-engines] [pytest arguments]
#
# --all-engines runs all tests on both engines. With pytest arguments, only pytest runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The tests that use TensorFlow most; tests/test_engines.py needs both engines.
subset=(tests/test_{checkpoints,inputs,networks_alexnet,model_fn,optimizers,train}.py)

set_up_other() { # [PART...]: print the other engine's interpreter, or nothing
  local wish=2.15 other
  if [[ $python == */.venv/2.15/* ]]; then wish=""; fi
  other="$(PYTHON="" ALEXNET_TF="$wish" bash launch/setup_env.sh --with-tests "$@")" ||
    other=""
  if [[ $other != "$python" ]]; then echo "$other"; fi
}

python="$(bash launch/setup_env.sh --with-tests --with-horovod --with-onnx)"
other=""
if [[ ${1:-} == --all-engines ]]; then
  shift
  subset=()
  other="$(set_up_other --with-horovod)"
  if [[ -z $other ]]; then
    echo "run.sh: no environment for a second engine, see above" >&2
    exit 2
  fi
elif (($# == 0)); then
  other="$(set_up_other)"
else
  subset=()
fi

if (($# == 0)); then
  "$python" -m black --quiet --check --diff .
  "$python" -m isort --quiet --check --diff .
  "$python" -m flake8
  "$python" -m mypy
  PATH="${python%/*}:$PATH" shellcheck launch/*.sh examples/cluster/*.sh \
    tests/programs/*.sh tests/run.sh .ci/run
  # Processes get whole files, whose jobs are then run once. Skipped tests say why.
  set -- --numprocesses=2 --dist=loadfile --durations=20 -r s
fi
if [[ -n $other ]]; then "$other" -m pytest "$@" "${subset[@]}"; fi
exec "$python" -m pytest "$@"
