"""The configuration of a subcommand: a file or a stored run, changed by flags."""

import os
import sys
from typing import Optional

from alexnet_estimator import config as config_lib
from alexnet_estimator import config_file, console, run_record
from alexnet_estimator.command_line import Command
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.paths import expand_paths
from alexnet_estimator.rank_environment import is_rank


def configure(command: Command, file: Optional[str]) -> Config:
    """Return the configuration of a file, with the flags applied, and validate it.

    Args:
        command: Command line.
        file: Path of a configuration file; None for the default configuration.

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
    # The paths are made absolute, because ranks and later subcommands may be started in
    # another folder.
    if config.data.path and not config.data.path.startswith("sample:"):
        config.data.path = os.path.abspath(config.data.path)
    if config.warm_start.path:
        config.warm_start.path = os.path.abspath(config.warm_start.path)
    config_lib.validate(config, command.words[0])
    if config.runtime.num_threads and "tensorflow" not in sys.modules:
        # MKL has its own threads, whose number it reads when TensorFlow is imported.
        os.environ["OMP_NUM_THREADS"] = str(config.runtime.num_threads)
    return config


def announce_loading() -> None:
    """Print a message, because importing TensorFlow takes seconds."""
    if not is_rank(os.environ):  # The launcher has printed it for its ranks.
        console.note("loading TensorFlow ...")


def find_stored_config(model_dir: str) -> str:
    """Return the path of the ``config.json`` of a run.

    Raises:
        ConfigError: The folder has no run.
    """
    file = run_record.path_of(model_dir)
    if not os.path.isfile(file):
        raise ConfigError(
            f"{model_dir} has no run (no config.json): give the --model_dir of train"
        )
    return file
