"""A folder of a few thousand pictures of any classes.

    bash launch/run_1p.sh --config=configs/small_data.py --data_path=FOLDER \\
        --model_dir=RUN

The settings are those of cats_vs_dogs_small.py, whose accuracy docs/results.md has.
The classes need not be of equal size: each has the same share of the loss.  The run
ends when the held-out accuracy has not improved for 50 epochs; `evaluate`, `predict`
and `export` then use the best weights.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return at most 200 epochs of strongly changed pictures, with balanced classes."""
    return config_lib.config_from(
        {
            "data": {
                "image_size": 127,
                "crop_fractions": (0.45, 1.0),
                "crop_aspects": (0.75, 1.33),
                "brightness": 0.3,
                "contrast": 0.3,
                "saturation": 0.3,
                "mixup_alpha": 0.2,
                "use_ten_crop": True,
            },
            "model": {"fc6_units": 1024, "fc7_units": 1024},
            "optim": {
                "learning_rate": 0.01,
                "warmup_epochs": 3.0,
                "label_smoothing": 0.1,
                "ema_decay": 0.999,
                "class_weights": "balanced",
            },
            "train": {
                "batch_size_per_rank": 32,
                "epochs": 200.0,
                "eval_every_epochs": 10.0,
                "patience_epochs": 50.0,
            },
        }
    )
