"""Your own folder of pictures, starting from the weights of a trained AlexNet.

    bash launch/run_1p.sh --config=configs/finetune.py --data_path=FOLDER \
        --warm_start_from=bvlc_alexnet.npy --model_dir=runs/mine

Ten epochs, one rank, a CPU, GPU or NPU.  The first two layers keep their weights, the
other restored ones learn at a tenth of the learning rate, and fc8 is new for your
classes.  Local response normalisation is Caffe's, with which ``bvlc_alexnet.npy`` was
trained; for one of your own runs, set what the start card notes.

Accuracy, time and memory: not measured, since the real ``bvlc_alexnet.npy`` was not at
hand.  The other verbs take this file, too; only ``train`` needs --warm_start_from.
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
