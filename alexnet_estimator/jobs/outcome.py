"""Writing of the sample predictions and of the report after a training."""

import os
from typing import Optional, Sequence

from alexnet_estimator import checkpoints, files, report
from alexnet_estimator.console import warn
from alexnet_estimator.errors import DataError
from alexnet_estimator.hooks.answers import Answer
from alexnet_estimator.hooks.heartbeat import Heartbeat
from alexnet_estimator.jobs.evaluate import Evaluation
from alexnet_estimator.jobs.pictures import draw_kernels
from alexnet_estimator.jobs.samples import describe
from alexnet_estimator.jobs.session import Run
from alexnet_estimator.networks import find_network

_PHASE = "report"  # Phase of the heartbeats.


def write_outcome(
    run: Run,
    evaluation: Evaluation,
    answers: Sequence[Answer],
    heartbeat: Heartbeat,
) -> Optional[str]:
    """Write drawings of kernels, ``samples.json`` and ``report.html`` to the run.

    Only rank 0 calls this function.

    Args:
        run: Trained run.
        evaluation: Evaluation of the checkpoint that counts.
        answers: Answers of the evaluation that are shown.
        heartbeat: Heartbeat of this process.  Without heartbeats, the launcher would
            take a long report for a hang and stop the job.

    Returns:
        The path of the report, or None after a failure, which is printed as a warning.
    """
    try:
        heartbeat.beat(_PHASE)
        step = evaluation["global_step"]
        checkpoint = checkpoints.path_of(run.model_dir, step)
        if checkpoint is None:
            raise DataError(f"no checkpoint of step {step}")
        network = find_network(run.config.model.network)
        for name, drawing in draw_kernels(network, checkpoint).items():
            files.write_bytes(os.path.join(run.model_dir, f"{name}.png"), drawing)
        if not run.config.data.synthetic:
            num_images = evaluation["num_images"]
            num_right = round(evaluation["top_1_accuracy"] * num_images)
            samples = {
                "global_step": step,
                "num_images": num_images,
                "num_mistakes": num_images - num_right,
                "pictures": describe(run, answers),
            }
            path = os.path.join(run.model_dir, "samples.json")
            files.write_bytes(path, files.encode_json(samples))
        heartbeat.beat(_PHASE)
        return report.write_report([run.model_dir])
    except Exception as error:  # The training itself is complete and saved.
        warn(f"{run.model_dir}: no report: {error!r}")
        return None
