"""Reading of configuration files: Python code, or the ``config.json`` of a run.

This module does not import TensorFlow.
"""

import errno
import importlib.util
import pathlib

from alexnet_estimator import run_record
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.schema import SCHEMA


def load_config_file(path: str, network: str = "") -> Config:
    """Return the configuration of a file.

    A ``.py`` file is executed, and its function ``get_config()`` returns the
    configuration.  It runs with your rights, so inspect a file from another person
    before you use it.  A ``.json`` file (the ``config.json`` of a run) is only read.
    The files of the project, ``configs/X.py``, are found from any folder.

    Args:
        path: Path of the file.
        network: Network that replaces the recorded one, whose file may have moved;
            empty for the recorded network.

    Raises:
        ConfigError: The file does not exist, has no ``get_config``, or returns
            something other than a configuration of this version.
    """
    file, ready_made = pathlib.Path(path), ready_made_folder()
    if not file.exists() and file.parent == pathlib.Path("configs"):
        file = ready_made / file.name
    if not file.is_file():
        names = [f"configs/{found.name}" for found in sorted(ready_made.glob("*.py"))]
        raise ConfigError(f"{path} is not a file; the project has {', '.join(names)}")
    if file.suffix == ".json":
        record = run_record.read(path, network, is_run=False)
        return Config(record.config.to_dict()).lock()
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", str(file))
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is neither a .py nor a .json file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # The user's code can raise any error.
        if isinstance(error, OSError) and error.errno == errno.EIO:
            error.filename = error.filename or path
            raise  # The disk is broken, so that another configuration would not help.
        raise ConfigError(f"{type(error).__name__}: {error}", path) from error
    if not isinstance(config, Config) or set(config) != set(SCHEMA):
        raise ConfigError(
            "get_config() must return alexnet_estimator.config.default_config() "
            "with fields changed",
            path,
        )
    return config


def ready_made_folder() -> pathlib.Path:
    """Return the folder ``configs``: beside the package, or in it when installed."""
    package = pathlib.Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
