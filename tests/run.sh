#!/usr/bin/env bash
# Set up the environment, lint, check types, and run all tests on the default engine. If
# there is a Python for the other engine, run the files of $numbers on it first.
#
#   bash tests/run.sh [--all-engines] [pytest arguments]
#
# --all-engines runs all tests on both engines. With pytest arguments, only pytest runs.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

# The tests whose numbers depend on the engine most. The others run without MKL, which
# large networks need for speed, and with which tiny ones take half as long again.
numbers=(tests/test_{checkpoints,inputs,networks_alexnet,model_fn,optimizers,train}.py)
of_default=("${numbers[@]}" tests/test_{engines,ranks}.py)

set_up_other() { # [PART...]: print the other engine's interpreter, or nothing
  local wish=2.15 other
  if [[ $python == */.venv/2.15/* ]]; then wish=""; fi
  other="$(PYTHON="" ALEXNET_TF="$wish" bash launch/setup_env.sh --with-tests "$@")" ||
    other=""
  if [[ $other != "$python" ]]; then echo "$other"; fi
}

python="$(bash launch/setup_env.sh --with-tests --with-horovod --with-onnx)"
other="" of_other=("${numbers[@]}")
if [[ ${1:-} == --all-engines ]]; then
  shift
  of_other=()
  other="$(set_up_other --with-horovod)"
  if [[ -z $other ]]; then
    echo "run.sh: no environment for a second engine, see above" >&2
    exit 2
  fi
elif (($# == 0)); then
  other="$(set_up_other)"
fi
if (($# > 0)); then
  if [[ -n $other ]]; then "$other" -m pytest "$@"; fi
  exec "$python" -m pytest "$@"
fi

"$python" -m black --quiet --check --diff .
"$python" -m isort --quiet --check --diff .
"$python" -m flake8
"$python" -m mypy
PATH="${python%/*}:$PATH" shellcheck launch/*.sh examples/cluster/*.sh \
  tests/programs/*.sh tests/run.sh .ci/run
# A command sets this for a job with one thread.  Jobs inside of the processes of pytest
# would have two threads each, which wait for each other.
export OMP_NUM_THREADS=1 KMP_BLOCKTIME=0
# Processes get whole files, whose jobs are then run once. With two processes, a fifth of
# the time of two cores would be spent waiting. Skipped tests say why.
options=(--numprocesses=3 --dist=loadfile --durations=20 -r s)
if [[ -n $other ]]; then "$other" -m pytest "${options[@]}" "${of_other[@]}"; fi
"$python" -m pytest "${options[@]}" "${of_default[@]}"
export TF_DISABLE_MKL=1
exec "$python" -m pytest "${options[@]}" "${of_default[@]/#/--ignore=}"
