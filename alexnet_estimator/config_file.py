"""Files that a configuration is read from: Python code, or the record of a run.

No TensorFlow is imported here.
"""

import importlib.util
import pathlib

from alexnet_estimator import run_record
from alexnet_estimator.config import Config
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.schema import SCHEMA


def load_config_file(path: str, network: str = "") -> Config:
    """Run a configuration file and return what its ``get_config()`` returns.

    A configuration file is Python code and runs with your rights: read files from
    elsewhere before you use them.  A ``.json`` file (a run's ``config.json``) is only
    read.  The ready-made ones, ``configs/X.py``, are found from any folder.

    Args:
        path: Path of the file.
        network: Network in place of the one that a run has recorded, whose file may
            have moved; empty: the recorded one.

    Raises:
        ConfigError: no such file, no ``get_config``, or not made by this schema.
    """
    file, ready_made = pathlib.Path(path), ready_made_folder()
    if not file.exists() and file.parent == pathlib.Path("configs"):
        file = ready_made / file.name
    if not file.is_file():
        names = [f"configs/{found.name}" for found in sorted(ready_made.glob("*.py"))]
        raise ConfigError(f"{path} is not a file; there are {', '.join(names)}")
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
    except Exception as error:  # The file is the user's code: any error may come.
        raise ConfigError(f"{type(error).__name__}: {error}", path) from error
    if not isinstance(config, Config) or set(config) != set(SCHEMA):
        raise ConfigError(
            "get_config() must return alexnet_estimator.config.default_config() "
            "with fields changed",
            path,
        )
    return config


def ready_made_folder() -> pathlib.Path:
    """Return ``configs/``: in an installed package, or in a clone beside it."""
    package = pathlib.Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
