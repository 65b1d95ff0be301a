"""Strong augmentation for a few thousand photos, e.g. of cats and dogs.

    bash launch/run_1p.sh --config=configs/cats_vs_dogs_small.py --data_path=FOLDER \\
        --model_dir=RUN

A second stage continues from its weights with a small learning rate and weak
augmentation:

    bash launch/run_1p.sh --config=configs/cats_vs_dogs_small.py --data_path=FOLDER \\
        --model_dir=RUN2 --warm_start_from=RUN --epoch=10 --learning_rate=0.001 \\
        --config.optim.warmup_epochs=1 "--config.data.crop_fractions=(0.8,1.0)"

docs/results.md has accuracy, time and hardware.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return 60 epochs of crops of all sizes, colour noise and averaged weights."""
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
