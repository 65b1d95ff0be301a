"""Which configuration a subcommand uses: a file's or a run's, and then the flags."""

import os
from typing import Optional

from alexnet_estimator import config as config_lib
from alexnet_estimator import config_file, console, run_record
from alexnet_estimator.command_line import Command
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.paths import expand_paths
from alexnet_estimator.rank_environment import is_rank


def configure(command: Command, file: Optional[str]) -> Config:
    """Return the fields of a configuration file with the flags applied, validated.

    Args:
        command: The command line.
        file: A configuration file; None: the default configuration.

    Raises:
        ConfigError: The file or a value is wrong.
    """
    network = dict(command.fields()).get("model.network", "")
    config = config_lib.default_config()
    if file:
        config = config_file.load_config_file(file, network)
    config_lib.apply_overrides(config, command.fields())
    paths = {name: text for name, text in config_lib.path_fields(config) if text}
    config_lib.apply_overrides(config, expand_paths(paths).items())
    # Ranks and later commands may be started from another folder.
    if config.data.path and not config.data.path.startswith("sample:"):
        config.data.path = os.path.abspath(config.data.path)
    if config.warm_start.path:
        config.warm_start.path = os.path.abspath(config.warm_start.path)
    config_lib.validate(config, command.words[0])
    return config


def announce_loading() -> None:
    """Say at once that the command works: importing TensorFlow takes seconds."""
    if not is_rank(os.environ):  # The launcher has said it.
        console.note("loading TensorFlow ...")


def find_stored_config(model_dir: str) -> str:
    """Return the path of the ``config.json`` of a run.

    Raises:
        ConfigError: The folder holds no run.
    """
    file = run_record.path_of(model_dir)
    if not os.path.isfile(file):
        raise ConfigError(
            f"{model_dir} holds no run (no config.json); give the --model_dir of train"
        )
    return file
