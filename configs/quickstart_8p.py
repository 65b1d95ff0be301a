"""The quick start on eight ranks, with a network that is small enough for a laptop.

    bash launch/run_8p.sh
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return AlexNet with a quarter of the width, on the photos of the quick start."""
    return config_lib.config_from(
        {
            "data": {"path": "sample:mono_poly", "image_size": 63},
            "convert": {"short_side": 71, "images_per_shard": 128},
            "model": {"width_multiplier": 0.25},
            "optim": {"learning_rate": 0.02, "warmup_epochs": 1.0},
            "train": {
                "batch_size_per_rank": 8,
                "epochs": 8.0,
                "eval_every_epochs": 4.0,
                "seed": 1,
            },
        }
    )
