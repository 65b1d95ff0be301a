"""Strong augmentation and mixup for a few thousand photos, e.g. of cats and dogs.

    bash launch/run_1p.sh --config=configs/cats_vs_dogs_small.py --data_path=FOLDER \\
        --model_dir=RUN

docs/results.md has accuracy, time and hardware.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return 200 epochs of strongly changed pictures, with averaged weights."""
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
            # With 4,096 units, these layers would have nine of ten weights.
            "model": {"fc6_units": 1024, "fc7_units": 1024},
            "optim": {
                "learning_rate": 0.01,
                "warmup_epochs": 3.0,
                "label_smoothing": 0.1,
                "ema_decay": 0.999,
            },
            "train": {
                "batch_size_per_rank": 32,
                "epochs": 200.0,
                "eval_every_epochs": 20.0,
            },
        }
    )
