"""A folder of a few thousand pictures of any classes.

    bash launch/run_1p.sh --config=configs/small_data.py --data_path=FOLDER \\
        --model_dir=RUN

The augmentation is that of cats_vs_dogs_small.py, whose accuracy docs/results.md has.
The classes need not be of equal size: each has the same share of the loss.  The run
ends when the held-out accuracy has not improved for 20 epochs; `evaluate`, `predict`
and `export` then use the best weights.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return at most 60 epochs of crops of all sizes, with balanced classes."""
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
                "class_weights": "balanced",
            },
            "train": {
                "batch_size_per_rank": 64,
                "epochs": 60.0,
                "eval_every_epochs": 5.0,
                "patience_epochs": 20.0,
            },
        }
    )
