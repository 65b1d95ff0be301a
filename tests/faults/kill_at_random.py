"""Kill jobs of two ranks again and again; each time the next start has to go on.

    python -m tests.faults.kill_at_random [NUM_KILLS [SEED]]

The launcher or a rank gets SIGKILL at a random moment: while it loads, trains, saves,
evaluates or ends.  Then the same command is given again, until the run is complete.
"""

import contextlib
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from typing import Any, Iterator, List, Mapping

from alexnet_estimator import checkpoints
from tests import pictures
from tests.faults.kit import REPOSITORY, Job, assert_same_weights, run_ranks

NUM_STEPS = 24


def kill_at_random(
    folder: pathlib.Path,
    flags: Mapping[str, Any],
    job_secs: float,
    num_kills: int,
    seed: int = 0,
) -> Iterator[str]:
    """Kill so many times; check that nothing is lost and that runs end as they must.

    Args:
        folder: of the runs.
        flags: of the job; its ``model_dir`` is that of an uninterrupted run.
        job_secs: that this run has taken.
        num_kills: of as many runs as it takes.
        seed: of moments and victims.

    Yields:
        What has been done, a line for each kill.
    """
    chance, reference = random.Random(seed), flags["model_dir"]
    last_step = _steps(flags)[-1]
    flags = {**flags, "model_dir": folder / "run_1"}
    for number in range(1, num_kills + 1):
        yield _kill_once(flags, chance.uniform(0, job_secs), chance)
        if number == num_kills or last_step in _steps(flags):
            result = run_ranks(2, flags)
            assert result.exit_code == 0, result.output
            assert_same_weights(flags["model_dir"], reference)
            flags = {**flags, "model_dir": folder / f"run_{number + 1}"}


def _kill_once(
    flags: Mapping[str, Any], moment_secs: float, chance: random.Random
) -> str:
    """Start a job and kill one of its processes; check what that leaves."""
    before = max(_steps(flags), default=0)
    job = Job(2, flags)
    time.sleep(moment_secs)
    victim = chance.choice(job.pids() or [0])
    at_kill = max(_steps(flags), default=0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim or job.popen.pid, signal.SIGKILL)
    exit_code = job.finish().exit_code
    steps = _steps(flags)
    after = max(steps, default=0)
    assert before <= at_kill <= after
    for prefix in checkpoints.list_checkpoints(str(flags["model_dir"])):
        assert checkpoints.find_problem(prefix) is None
    assert not pathlib.Path(flags["model_dir"], "quarantine").exists()
    who = "the launcher" if victim == job.popen.pid else "a rank"
    return (
        f"after {moment_secs:4.1f} s {who if victim else 'nobody'} was killed: exit "
        f"code {exit_code}, from step {before} to {after}"
    )


def _steps(flags: Mapping[str, Any]) -> List[int]:
    prefixes = checkpoints.list_checkpoints(str(flags["model_dir"]))
    return [checkpoints.step_of(prefix) or 0 for prefix in prefixes]


def main() -> None:
    """Do it in a temporary folder."""
    num_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = pictures.make_dataset(
            folder, num_per_class=24, images_per_shard=8, short_side=71
        )
        flags = {
            "config": REPOSITORY / "configs" / "tiny.py",
            "data_path": data.directory,
            "model_dir": folder / "uninterrupted",
            "train_steps": NUM_STEPS,
            "config.train.eval_every_epochs": 4,
            "config.train.save_every_steps": 1,
        }
        job_secs = run_ranks(2, flags).secs
        for line in kill_at_random(folder, flags, job_secs, num_kills, seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
