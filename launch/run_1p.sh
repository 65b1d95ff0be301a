#!/usr/bin/env bash
# Train on one card, or on the ranks of a rank table:
#
#   bash launch/run_1p.sh [flags], see --help
set -euo pipefail

launch="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
python="$(bash "$launch/setup_env.sh")"

flags=" $*"
uses_npu() {
  local device=auto
  if [[ $flags =~ \ --?device[=\ ]([a-z]+) ]]; then device="${BASH_REMATCH[1]}"; fi
  [[ $device == npu ]] || { [[ $device == auto ]] && "$python" -c 'import sys
from importlib.util import find_spec
sys.exit(find_spec("npu_bridge") is None)'; }
}

# Ranks communicate through Horovod, and on NPUs through the vendor's HCCL.
if [[ $flags =~ \ --?rank_table && ! $flags =~ \ --?(help|dry_run) ]] && ! uses_npu; then
  python="$(bash "$launch/setup_env.sh" --with-horovod)"
fi
exec "$python" -m alexnet_estimator train "$@"
