"""The train subcommand."""

import os
import pathlib
from typing import Optional, Tuple

from alexnet_estimator import config_file, console, run_record
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.config import Config
from alexnet_estimator.errors import EXIT_DONE, ConfigError
from alexnet_estimator.rank_environment import is_rank
from alexnet_estimator.rank_table import Topology
from alexnet_estimator.verbs.ranks import (
    FLAGS,
    launch_ranks,
    read_topology,
    watching_alone,
)
from alexnet_estimator.verbs.settings import announce_loading, configure


def train(command: Command) -> int:
    """Train, or with --dry_run say what training would do."""
    config, name = _configure(command)
    model_dir = command.flags.model_dir or os.path.join("runs", name)
    topology = read_topology(command)
    announce_loading()
    _check_warm_start(config, model_dir, topology)
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

    Without --config it is that of the run in --model_dir; in a new folder it is the
    quick start with the sample data, or the default for data of one's own.
    """
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        stored = run_record.path_of(given.model_dir)
        file = stored if os.path.exists(stored) else None
    is_synthetic = any(name == "data.synthetic" for name, _ in command.overrides)
    if not file and not given.data_path and not is_synthetic:
        # Eight full networks on the cores of one laptop help nobody.
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


def _check_warm_start(
    config: Config, model_dir: str, topology: Optional[Topology]
) -> None:
    """Look at the source of the weights before pictures are converted.

    Only one of several servers has the source, and ranks are started after the check.

    Raises:
        UserError: The source cannot be used.
    """
    is_elsewhere = topology is not None and len(topology.servers) > 1
    is_checked = is_rank(os.environ)
    if config.warm_start.path and not is_elsewhere and not is_checked:
        from alexnet_estimator.jobs.first_weights import check_source

        check_source(config, model_dir)


VERB = Verb(
    train,
    "Train and evaluate; a run that was interrupted is resumed.",
    "model_dir data_path config train_steps epoch batch_size learning_rate "
    "precision_mode loss_scale seed warm_start_from dry_run device max_restarts "
    + FLAGS,
    examples=(
        "train --data_path=photos/ --model_dir=runs/photos --epoch=30",
        "train --config=configs/cats_vs_dogs.py --data_path=cats/ --rank_table=8p.json",
    ),
    texts={
        "model_dir": "Folder of the run. It is made where it is missing, and a run "
        "there is resumed. Default: runs/CONFIG, e.g. runs/cats_vs_dogs.",
        "data_path": "Converted data, a folder or a zip of pictures, or ImageNet "
        "TFRecords. Default: sample:mono_poly, e.g. /data/cats_vs_dogs.",
        "config": "Configuration: a file such as those in configs/, which is Python "
        "code, or the config.json of a run. Default: that of the run in --model_dir; "
        "for a new run configs/default.py, or without --data_path "
        "configs/quickstart.py; e.g. configs/cats_vs_dogs.py.",
    },
)
