"""The default configuration, in which every field has its default value."""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return the default configuration."""
    return config_lib.default_config()
