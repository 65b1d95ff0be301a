"""Cats and dogs from a few thousand photos, in two stages.

    bash launch/run_1p.sh --config=configs/cats_vs_dogs_small.py --data_path=FOLDER
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return a long schedule with all the augmentation that there is."""
    return config_lib.config_from(
        {
            "data": {
                "image_size": 127,
                "crop_fractions": (0.5, 1.0),
                "colour_noise_std": 0.1,
            },
            "optim": {
                "learning_rate": 0.01,
                "warmup_epochs": 3.0,
                "label_smoothing": 0.1,
                "ema_decay": 0.998,
            },
            "train": {
                "batch_size_per_rank": 64,
                "epochs": 60.0,
                "eval_every_epochs": 10.0,
            },
        }
    )
