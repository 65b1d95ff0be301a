"""A faulty configuration: it differs between the ranks."""

import os

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return a configuration whose seed is the number of the rank."""
    seed = int(os.environ.get("HOROVOD_RANK", 0))
    training = {"batch_size_per_rank": 8, "seed": seed}
    return config_lib.config_from({"data": {"image_size": 63}, "train": training})
