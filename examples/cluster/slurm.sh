#!/usr/bin/env bash
# Train on the servers that Slurm allocates, with one launcher on each server:
#
#   sbatch --nodes=2 examples/cluster/slurm.sh --data_path=DATA --model_dir=RUN [flags]
#
# Submit it from the clone. All servers must see the clone, DATA and RUN at the same paths.
# --rank_table=FILE sets the ranks, and Ascend needs it. Without it, each server has
# $DEVICES ranks (default 1) on CPUs or GPUs. Slurm sends SIGTERM two minutes before the
# time limit (scancel --signal=TERM JOB does the same). The run is then saved, and the job
# is requeued and resumes.
#SBATCH --job-name=alexnet
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail

python="$(bash launch/setup_env.sh --with-horovod)"
addresses=""
if [[ " $*" != *" --rank_table="* ]]; then
  table="$PWD/slurm-$SLURM_JOB_ID.json"
  addresses="$(scontrol show hostnames "$SLURM_JOB_NODELIST" |
    xargs -n 1 getent ahostsv4 | awk '$2 == "STREAM" {print $1}' | paste -sd,)"
  rm -f "$table" # The job has written it before it was requeued.
  "$python" -m alexnet_estimator rank_table make --servers="$addresses" \
    --devices="${DEVICES:-1}" --output="$table"
  set -- --rank_table="$table" "$@"
fi

# Each server's launcher writes to its own file. The first one's file shows the progress.
# shellcheck disable=SC2016
on_server='IFS=, read -r -a all <<<"$1"
exec "${@:2}" ${1:+--server_id="${all[SLURM_NODEID]}"}'
code=0
trap : TERM # A signal to the whole job must not end this script before its launchers.
# The first launcher ends later than the others, because it writes the report of the run.
srun --kill-on-bad-exit=0 --wait=600 --output="slurm-$SLURM_JOB_ID.%n.out" \
  bash -c "$on_server" on_server "$addresses" \
  "$python" -m alexnet_estimator train "$@" || code=$?
if ((code == 75)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
