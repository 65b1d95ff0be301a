"""Fine-tuning on your own folder of pictures, from the weights of a trained AlexNet.

    bash launch/run_1p.sh --config=configs/finetune.py --data_path=FOLDER \
        --warm_start_from=bvlc_alexnet.npy --model_dir=runs/mine

It trains ten epochs on one rank with a CPU, GPU or NPU.  The first two layers keep
their weights, the other restored layers have a tenth of the learning rate, and fc8 is
new for your classes.  The local response normalisation is that of Caffe, with which
``bvlc_alexnet.npy`` was trained.  For weights of one of your own runs, the training
prints the settings to change when it starts.

Accuracy, time and memory were not measured, because the original ``bvlc_alexnet.npy``
was not available.  The other subcommands can use this file, too; only ``train`` needs
--warm_start_from.
"""

from alexnet_estimator import config as config_lib


def get_config() -> config_lib.Config:
    """Return a short training with a small learning rate."""
    return config_lib.config_from(
        {
            "model": {"lrn_bias": 1.0, "lrn_alpha": 2e-5},
            "optim": {"learning_rate": 0.001, "warmup_epochs": 0.5},
            "warm_start": {"frozen_until": "conv2", "learning_rate_factor": 0.1},
            "train": {"batch_size_per_rank": 32, "epochs": 10.0},
        }
    )
