#!/usr/bin/env bash
# Train on the ranks of a rank table, by default on eight of this machine:
#
#   bash launch/run_8p.sh [RANK_TABLE.json] [flags]
set -euo pipefail

launch="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
rank_table="$launch/../rank_tables/8p.json"
if [[ ${1:-} == [!-]*.json ]]; then
  rank_table="$1"
  shift
fi
exec bash "$launch/run_1p.sh" --rank_table="$rank_table" "$@"
