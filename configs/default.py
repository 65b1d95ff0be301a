"""The default configuration: every field as ``alexnet_estimator/config.py`` has it."""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return the defaults."""
    return config_lib.default_config()
