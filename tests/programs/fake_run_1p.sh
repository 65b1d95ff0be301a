#!/usr/bin/env bash
# In the place of launch/run_1p.sh: writes down what it is given, and ends as a file says.
set -eu
for flag in "$@"; do
  case "$flag" in
    --rank_table=*) table="${flag#*=}" ;;
    --server_id=*) server="${flag#*=}" ;;
    --folder=*) folder="${flag#*=}" ;;
  esac
done
cp "$table" "$folder/$server.table"
printf '%s\n' "$@" >"$folder/$server.flags"
trap 'echo TERM >>"$folder/$server.signals"' TERM
echo "step 1 on $server"
: >"$folder/$server.ready"
until [[ -s $folder/$server.code ]]; do
  if [[ $(grep -c TERM "$folder/$server.signals" 2>/dev/null) == 2 ]]; then exit 137; fi
  sleep 0.05
done
exit "$(cat "$folder/$server.code")"
