"""The benchmark subcommand."""

import contextlib
import functools
import os
import pathlib
import shutil
import tempfile

from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.console import check_reader
from alexnet_estimator.errors import EXIT_DONE, EXIT_STOPPED
from alexnet_estimator.jobs.benchmark.request import (
    NUM_STEPS,
    NUM_WARMUP_STEPS,
    BenchmarkRequest,
    check_request,
)
from alexnet_estimator.verbs.ranks import (
    RANK_FLAGS,
    launch_ranks,
    read_topology,
    watching_alone,
)
from alexnet_estimator.verbs.settings import (
    announce_loading,
    configure,
    find_stored_config,
)


def benchmark(command: Command) -> int:
    """Measure the speed of training, evaluation and input."""
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        file = find_stored_config(given.model_dir)
    config = configure(command, file)
    config.data.synthetic = not config.data.path
    name = pathlib.Path(file).stem if file else "default"
    model_dir = given.model_dir or os.path.join("runs", name)
    request = BenchmarkRequest(
        command.arguments,
        command.number("train_steps", NUM_STEPS),
        command.number("warmup_steps", NUM_WARMUP_STEPS),
        given.output or "",
        bool(given.profile),
    )
    check_request(request)
    topology = read_topology(command)
    announce_loading()
    if topology is None:
        from alexnet_estimator.jobs.benchmark.job import benchmark as run_benchmark

        watch = functools.partial(watching_alone, command)
        run_benchmark(config, model_dir, request, watch)
        return EXIT_DONE
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="alexnet-benchmark-")
        stack.callback(shutil.rmtree, folder)
        code = launch_ranks(command, config, model_dir, topology, folder)
        if code not in (EXIT_DONE, EXIT_STOPPED):
            stack.pop_all()  # The error message names the logs, so they are kept.
    check_reader()
    return code


VERB = Verb(
    benchmark,
    "Measure images/s of training, evaluation and the input pipeline.",
    "model_dir data_path config output train_steps batch_size precision_mode "
    "loss_scale device warmup_steps profile " + RANK_FLAGS,
    examples=(
        "benchmark --data_path=photos.data --output=speed.jsonl",
        "benchmark train --config=configs/cats_vs_dogs.py --train_steps=100",
    ),
    texts={
        "model_dir": "Folder of a run whose configuration is measured; the run is not "
        "changed. Default: no run. Example: runs/cats_vs_dogs.",
        "data_path": "Data: the output of convert, a folder or zip of pictures, or "
        "ImageNet TFRecords. Default: synthetic images only. Example: "
        "/data/cats_vs_dogs.",
        "config": "Configuration: a Python file such as those in configs/, or the "
        "config.json of a run. Default: that of the run in --model_dir, or "
        "configs/default.py. Example: configs/cats_vs_dogs.py.",
        "output": "File to which one JSON line is appended for each measurement; - "
        "prints these lines instead of a table. Default: a table only. Example: "
        "speed.jsonl.",
        "train_steps": "Number of measured steps. Default: 20. Example: 100.",
    },
    usage="[train] [evaluate] [input]",
    max_arguments=3,
    first_path=3,
)
