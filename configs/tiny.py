"""A network of 1/16 of the width on small images, which trains in seconds for tests.

    bash launch/run_1p.sh --config=configs/tiny.py --data_path=FOLDER
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return the smallest training that is useful."""
    return config_lib.config_from(
        {
            "data": {"image_size": 63, "shuffle_images": 256},
            "convert": {"short_side": 71, "images_per_shard": 16, "num_workers": 1},
            "model": {"width_multiplier": 1 / 16},
            "optim": {"learning_rate": 0.01, "weight_decay": 1e-4},
            "train": {
                "batch_size_per_rank": 8,
                "epochs": 4.0,
                "eval_every_epochs": 2.0,
                "log_every_steps": 2,
            },
        }
    )
