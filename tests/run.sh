#!/usr/bin/env bash
# Set up, then lint, check types and test. With arguments: only pytest, with these.
#
#   bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="$(bash launch/setup_env.sh --with-tests --with-horovod --with-onnx)"
if (($# == 0)); then
  "$python" -m black --quiet --check --diff .
  "$python" -m isort --quiet --check --diff .
  "$python" -m flake8
  "$python" -m mypy
  PATH="${python%/*}:$PATH" shellcheck launch/*.sh tests/run.sh .ci/run
  # Whole files, so that their jobs are run once.
  set -- --numprocesses=2 --dist=loadfile
fi
exec "$python" -m pytest "$@"
