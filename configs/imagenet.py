"""ImageNet (ILSVRC 2012) on 8 ranks, from TFRecords such as train-00000-of-01024.

    bash launch/run_8p.sh TABLE.json --config=configs/imagenet.py --data_path=FOLDER

This configuration has not been trained, because the data were not available.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return a schedule of 90 epochs with a large global batch."""
    return config_lib.config_from(
        {
            "data": {"label_offset": 1, "shuffle_images": 16384},
            "optim": {
                "learning_rate": 0.01,
                "learning_rate_scaling": "linear",
                "warmup_epochs": 5.0,
                "label_smoothing": 0.1,
            },
            "train": {"batch_size_per_rank": 128, "epochs": 90.0},
        }
    )
