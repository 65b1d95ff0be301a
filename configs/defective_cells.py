"""Functional and defective solar cells: the photos of the quick start, other labels.

    bash launch/run_1p.sh --config=configs/defective_cells.py

With --data_path=sample:defect_probability, it follows the protocol of the paper that
published the photos.  docs/results.md has accuracy, time and hardware.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return 60 epochs of whole cells in all orientations, with averaged weights.

    A cell has no up side, so quarter turns show it as another cell could be.  Crops are
    nearly whole, because a small one could miss the defect that the label is about.
    """
    return config_lib.config_from(
        {
            "data": {
                "path": "sample:defective",
                "image_size": 143,
                "crop_fractions": (0.85, 1.0),
                "use_quarter_turns": True,
                "brightness": 0.2,
                "contrast": 0.2,
            },
            "convert": {"short_side": 160, "images_per_shard": 256},
            "optim": {"learning_rate": 0.01, "warmup_epochs": 1.0, "ema_decay": 0.998},
            "train": {
                "batch_size_per_rank": 64,
                "epochs": 60.0,
                "eval_every_epochs": 5.0,
                "seed": 1,
            },
        }
    )
