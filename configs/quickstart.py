"""The quick start: mono- and polycrystalline solar cells, in minutes on a laptop.

    bash launch/run_1p.sh
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return the defaults with smaller images and dense layers, and few epochs."""
    return config_lib.config_from(
        {
            "data": {"path": "sample:mono_poly", "image_size": 79},
            "convert": {"short_side": 89, "images_per_shard": 256},
            # 4,096 units would take a quarter of the arithmetic of such small images,
            # which is better spent on more epochs.
            "model": {"fc6_units": 1024, "fc7_units": 1024},
            "optim": {"learning_rate": 0.01, "warmup_epochs": 1.0},
            "train": {"batch_size_per_rank": 32, "epochs": 8.0, "seed": 1},
        }
    )
