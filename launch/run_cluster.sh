#!/usr/bin/env bash
# Train on the ranks of several servers, with one command on any machine:
#
#   bash launch/run_cluster.sh RANK_TABLE.json [flags]
#   bash launch/run_cluster.sh HOST,HOST... [--devices=N] [flags]   (CPUs or GPUs)
#
# The clone, the current folder and the data are at the same paths on all servers, and
# ssh logs in to them without a password; $ALEXNET_SSH replaces "ssh -o BatchMode=yes".
# The output is that of the first server, the exit code that of the job. Ctrl-C or SIGTERM
# saves and stops all servers, and so does the end of this command, even by SIGKILL; a
# second signal ends the ranks at once.
set -euo pipefail

launch="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

say() { echo "run_cluster: $*" >&2; }

run_here() { # SERVER [flags]: run this server's ranks; stdin: the table, then requests
  local launcher watcher code=0
  exec 3<&0
  read -r REPLY
  echo "$REPLY" >"$folder/table.json"
  bash "$launch/run_1p.sh" --rank_table="$folder/table.json" --server_id="$1" "${@:2}" \
    </dev/null &
  launcher=$!
  # Each line is a request to stop. So is the end of the input: ssh has ended then.
  (while read -r _; do kill -TERM "$launcher"; done; kill -TERM "$launcher") \
    <&3 &>/dev/null &
  watcher=$!
  wait "$launcher" || code=$?
  kill "$watcher" 2>/dev/null || true
  exit "$code"
}

read_table() { # HOSTS_OR_TABLE [flags]: set table (on one line), servers and flags
  local devices=1 flag python path="$1"
  python="$(bash "$launch/setup_env.sh")"
  for flag in "${@:2}"; do
    if [[ $flag =~ ^--?devices=(.*) ]]; then
      devices="${BASH_REMATCH[1]}"
    else
      flags+=("$flag")
    fi
  done
  if [[ $path != *.json ]]; then
    path="$folder/table.json"
    "$python" -m alexnet_estimator rank_table make --servers="$1" --devices="$devices" \
      --output="$path" >"$folder/made" || exit
  fi
  "$python" -m alexnet_estimator rank_table check "$path" >"$folder/checked" || exit
  mapfile -t servers < <(sed -n 's/^  server //p' "$folder/checked")
  table="$(tr -d '\r\n' <"$path")"
}

start_servers() { # Set pids and inputs: the process and the input of each ssh
  local ssh i remote input
  read -r -a ssh <<<"${ALEXNET_SSH:-ssh -o BatchMode=yes}"
  for i in "${!servers[@]}"; do
    remote="cd $(printf %q "$PWD") && exec env $(printf '%q ' \
      ${PYTHON:+PYTHON="$PYTHON"} ${ALEXNET_TF:+ALEXNET_TF="$ALEXNET_TF"} \
      bash "$launch/run_cluster.sh" --on_server "${servers[i]}" "${flags[@]}")"
    mkfifo "$folder/input_$i"
    (
      # Otherwise the servers' inputs would stay open when this command is killed.
      for input in "${inputs[@]}"; do exec {input}>&-; done
      # Only the output of the first server is shown. That of another one is shown if it
      # fails.
      if ((i)); then exec &>"$folder/output_$i"; fi
      exec "${ssh[@]}" "${servers[i]}" "$remote" <"$folder/input_$i"
    ) &
    pids[i]=$!
    exec {input}>"$folder/input_$i"
    inputs[i]=$input
    echo "$table" >&"$input"
  done
}

stop_all() {
  local i
  for i in "${!pids[@]}"; do echo stop >&"${inputs[i]}" || true; done 2>/dev/null
}

note_end() { # INDEX CODE
  local input="${inputs[$1]}" reason=""
  codes+=("$2")
  unset "pids[$1]"
  exec {input}>&-
  if (($2 == 0 || $2 == 75)); then return; fi
  if (($2 == 255)); then reason=": ssh failed"; fi
  say "server ${servers[$1]} ended with exit code $2$reason"
  if (($1)); then tail -n 20 "$folder/output_$1" >&2; fi
  # The others notice it themselves, unless they still wait for this one.
  if [[ -z $timer ]]; then sleep "${ALEXNET_SETTLE_SECS:-20}" & timer=$!; fi
}

wait_for_all() { # Set codes: the exit code of each server that has ended
  local i code
  while ((${#pids[@]})); do
    wait -n || true # Some ssh or the timer has ended, or a signal has come.
    for i in "${!pids[@]}"; do
      if ! kill -0 "${pids[i]}" 2>/dev/null; then
        code=0
        wait "${pids[i]}" || code=$?
        note_end "$i" "$code"
      fi
    done
    if [[ -n $timer ]] && ! kill -0 "$timer" 2>/dev/null; then
      stop_all # This may be repeated: the second request ends the ranks.
      sleep 10 & timer=$!
    fi
  done
  if [[ -n $timer ]]; then kill "$timer" 2>/dev/null || true; fi
}

job_code() { # CODES...: print the code that explains the others
  local code wanted found=" $* "
  for wanted in 2 3 4; do
    if [[ $found == *" $wanted "* ]]; then echo "$wanted" && return; fi
  done
  for code in "$@"; do
    if ((code != 0 && code != 75)); then echo 5 && return; fi
  done
  if [[ $found == *" 75 "* ]]; then echo 75; else echo 0; fi
}

if [[ ${1:-} == --on_server ]]; then run_here "${@:2}"; fi
if [[ ${1:--} == -* ]]; then
  say "name a rank table or hosts: run_cluster.sh HOST,HOST... [--devices=N] [flags]"
  exit 2
fi
declare -a flags=() servers=() pids=() inputs=() codes=()
table="" timer=""
read_table "$@"
trap stop_all INT TERM HUP
start_servers
wait_for_all
exit "$(job_code "${codes[@]}")"
