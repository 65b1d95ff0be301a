"""Cats and dogs with the hyper-parameters of ModelZoo's AlexNet_ID0259.

    bash launch/run_1p.sh --config=configs/cats_vs_dogs.py --data_path=FOLDER

The data are Kaggle's 25,000 photos, of which 1,000 are held out.  The original job
passed its "depth 5" to TensorFlow as the radius of LRN, which spans 11 channels, and
this file does the same.  The paper's n = 5 is radius 2, the default.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return the hyper-parameters of the original training job."""
    return config_lib.config_from(
        {
            "convert": {"eval_fraction": 0.04},
            "model": {"lrn_radius": 5, "fc7_units": 1000},
            "optim": {
                "learning_rate": 0.001,
                "learning_rate_scaling": "linear",
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "schedule": "plateau",
            },
            "train": {"batch_size_per_rank": 100, "epochs": 35.0},
        }
    )
