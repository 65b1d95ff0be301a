"""The train subcommand."""

import os
import pathlib
from typing import Tuple

from alexnet_estimator import config_file, console, run_record
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.config import Config
from alexnet_estimator.errors import EXIT_DONE, ConfigError
from alexnet_estimator.rank_environment import is_rank
from alexnet_estimator.verbs.ranks import (
    RANK_FLAGS,
    launch_ranks,
    read_topology,
    watching_alone,
)
from alexnet_estimator.verbs.settings import announce_loading, configure


def train(command: Command) -> int:
    """Train, or describe the training with --dry_run."""
    config, name = _configure(command)
    model_dir = command.flags.model_dir or os.path.join("runs", name)
    topology = read_topology(command)
    announce_loading()
    # The source of the weights is checked before pictures are converted, unless it is
    # on another server, or the launcher of this rank has checked it.
    is_elsewhere = topology is not None and len(topology.servers) > 1
    if config.warm_start.path and not is_elsewhere and not is_rank(os.environ):
        from alexnet_estimator.jobs.first_weights import check_source

        check_source(config, model_dir)
    if command.flags.dry_run:
        from alexnet_estimator.jobs.dry_run import dry_run

        text, missing = dry_run(config, model_dir, topology)
        console.show(text)
        if missing:
            raise ConfigError(missing, "training cannot run here")
        return EXIT_DONE
    if topology is not None:
        return launch_ranks(command, config, model_dir, topology)
    from alexnet_estimator.jobs.session import open_run
    from alexnet_estimator.jobs.train import train as run_training

    run = open_run(config, model_dir)
    with watching_alone(command, run.runtime):
        run_training(run)
    return EXIT_DONE


def _configure(command: Command) -> Tuple[Config, str]:
    """Return the configuration and its name.

    The default of --config is the configuration of the run in --model_dir.  In a new
    folder, it is the default configuration if --data_path is given, and otherwise the
    quick start with the sample data.
    """
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        stored = run_record.path_of(given.model_dir)
        file = stored if os.path.exists(stored) else None
    is_synthetic = any(name == "data.synthetic" for name, _ in command.overrides)
    if not file and not given.data_path and not is_synthetic:
        # A laptop cannot train the network of the quick start on eight ranks.
        name = "quickstart_8p.py" if given.rank_table else "quickstart.py"
        file = str(config_file.ready_made_folder() / name)
    name = pathlib.Path(file).stem if file else "default"
    config = configure(command, file)
    if given.epoch is not None and given.train_steps is not None:
        console.warn(
            f"--train_steps={given.train_steps} decides when training ends; "
            f"--epoch={given.epoch} is not used"
        )
    if not config.data.path and not config.data.synthetic:
        config.data.path = "sample:mono_poly"
    return config, name


VERB = Verb(
    train,
    "Train and evaluate a network, or resume a run.",
    "model_dir data_path config train_steps epoch batch_size learning_rate "
    "precision_mode loss_scale seed warm_start_from dry_run device max_restarts "
    + RANK_FLAGS,
    examples=(
        "train --data_path=photos/ --model_dir=runs/photos --epoch=30",
        "train --config=configs/cats_vs_dogs.py --data_path=cats/ --rank_table=8p.json",
    ),
    texts={
        "model_dir": "Folder of the run. A missing folder is created, and an existing "
        "run is resumed. Default: runs/CONFIG. Example: runs/cats_vs_dogs.",
        "data_path": "Data: the output of convert, a folder or zip of pictures, or "
        "ImageNet TFRecords. Default: sample:mono_poly. Example: /data/cats_vs_dogs.",
        "config": "Configuration: a Python file such as those in configs/, or the "
        "config.json of a run. Default: that of the run in --model_dir; for a new run, "
        "configs/default.py, or configs/quickstart.py without --data_path. Example: "
        "configs/cats_vs_dogs.py.",
    },
)
