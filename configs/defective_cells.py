"""Functional and defective solar cells, in larger pictures than the quick start's.

    bash launch/run_1p.sh --config=configs/defective_cells.py

docs/results.md has accuracy, time and hardware.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return AlexNet on pictures of 127 px, with 30 epochs and crops of all sizes."""
    return config_lib.config_from(
        {
            "data": {
                "path": "sample:defective",
                "image_size": 127,
                "crop_fractions": (0.7, 1.0),
            },
            "convert": {"short_side": 143, "images_per_shard": 256},
            "optim": {"learning_rate": 0.005, "warmup_epochs": 1.0, "ema_decay": 0.998},
            "train": {
                "batch_size_per_rank": 32,
                "epochs": 30.0,
                "eval_every_epochs": 5.0,
                "seed": 1,
            },
        }
    )
