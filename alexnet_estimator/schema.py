"""The schema of the configuration: default, rule and description of every field.

This module does not import TensorFlow.
"""

import dataclasses
from typing import Any, Dict, NamedTuple

from alexnet_estimator.rules import (
    PATH,
    Rule,
    above,
    anything,
    at_least,
    between,
    class_weights,
    from_to_below,
    increasing_epochs,
    loss_scale,
    one_of,
    ordered_pair,
    percentages,
    rgb_or_empty,
)

# The side of a crop over the short side of the picture: 227 of 256 in the paper.
CROP_FRACTION = 227 / 256


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
        default: Default value, whose type is the type of the field.
        rule: Rule for its values.
        doc: Short description with the unit.
        is_fixed: Whether a run cannot change the value, because the shapes of its
            variables depend on it.
    """

    default: Any
    rule: Rule
    doc: str
    is_fixed: bool = False

    def describe_values(self) -> str:
        """Return the type of the values and their rule, in words."""
        kinds = {
            bool: "True or False",
            int: "a whole number",
            float: "a number",
            str: "text",
            tuple: "a list",
        }
        kind = kinds[type(self.default)]
        if self.rule.text == anything().text:
            return kind
        is_number = type(self.default) in (int, float)
        is_choice = self.rule.text.startswith("one of ")
        return (
            f"{kind}, {self.rule.text}"
            if is_number and not is_choice
            else self.rule.text
        )


class AcceleratorEntry(NamedTuple):
    """The registration of an accelerator.

    Attributes:
        accelerator: Subclass of ``runtime.Accelerator``, as ``module:class``.
        launch_backend: Name of the entry in ``launch.BACKENDS`` that starts its ranks.
        adapter: Name of the vendor's package, if it requires TensorFlow 1.15.
    """

    accelerator: str
    launch_backend: str
    adapter: str = ""


# By the value of runtime.device, in the order in which "auto" looks for them.
ACCELERATORS = {
    "npu": AcceleratorEntry("alexnet_estimator.runtime.npu:Npu", "npu", "npu_bridge"),
    "gpu": AcceleratorEntry("alexnet_estimator.runtime.host:Gpu", "horovod"),
    "cpu": AcceleratorEntry("alexnet_estimator.runtime.host:Cpu", "horovod"),
}

# The number of variables that each optimizer keeps for a weight.
OPTIMIZERS = {"momentum": 1, "adam": 2, "lars": 1}

PRECISION_MODES = {
    # The vendor's names, with what each computes.
    "auto": "allow_mix_precision on an NPU, must_keep_origin_dtype elsewhere",
    "allow_mix_precision": "float16 products, float32 weights, LRN, loss and updates",
    "must_keep_origin_dtype": "float32 throughout",
    "allow_fp32_to_fp16": "NPU only: float16 where float32 is not supported",
    "force_fp16": "NPU only: float16 throughout, meant for inference",
    "force_fp32": "NPU only: float32 wherever an operator supports it",
    "cube_fp16in_fp32out": "NPU only: float16 inputs, float32 sums in products",
}
PRECISION_ALIASES = {
    "mixed": "allow_mix_precision",
    "float32": "must_keep_origin_dtype",
}

# The predicate looks the name up when it is called: a program may register another
# accelerator after this module is imported.
_DEVICE = Rule(
    one_of("auto", *sorted(ACCELERATORS)).text,
    lambda name: name == "auto" or name in ACCELERATORS,
)
_SWITCH = one_of("auto", "on", "off")

# The help and the report show these descriptions: noun phrases with units.
SCHEMA: Dict[str, Dict[str, Field]] = {
    "data": {
        "path": Field("", PATH, "Converted data, or a folder or zip of pictures"),
        "synthetic": Field(False, anything(), "Random images instead of data.path"),
        "synthetic_classes": Field(
            1000, at_least(2), "Number of classes of synthetic data"
        ),
        "label_offset": Field(0, anything(), "Label of the first class; ImageNet: 1"),
        "image_size": Field(227, at_least(1), "Height and width of the crop in pixels"),
        "use_augmentation": Field(
            True, anything(), "Random crops and flips in training (paper, 4.1)"
        ),
        "crop_fractions": Field(
            (CROP_FRACTION, CROP_FRACTION),
            ordered_pair(0.1, 1, "(0.5, 1.0)"),
            "Smallest and largest side of a training crop / short side of the picture",
        ),
        "crop_aspects": Field(
            (1.0, 1.0),
            ordered_pair(0.25, 4, "(0.75, 1.33)"),
            "Smallest and largest width / height of a training crop",
        ),
        "use_quarter_turns": Field(
            False, anything(), "Random turns by 90 degrees in training"
        ),
        "colour_noise_std": Field(
            0.0, at_least(0), "PCA colour noise (paper, 4.1: 0.1); 0: none"
        ),
        "brightness": Field(
            0.0, from_to_below(0, 1), "Largest relative random change of brightness"
        ),
        "contrast": Field(
            0.0, from_to_below(0, 1), "Largest relative random change of contrast"
        ),
        "saturation": Field(
            0.0, from_to_below(0, 1), "Largest relative random change of saturation"
        ),
        "erasing_probability": Field(
            0.0, between(0, 1), "Probability of random erasing (Zhong et al., 2017)"
        ),
        "mixup_alpha": Field(
            0.0, between(0, 100), "Mixup: alpha of Beta(alpha, alpha); 0: no mixup"
        ),
        "cutmix_alpha": Field(
            0.0, between(0, 100), "CutMix: alpha of Beta(alpha, alpha); 0: no CutMix"
        ),
        "use_ten_crop": Field(
            False,
            anything(),
            "Average over 10 crops in evaluation and prediction (paper, 4.1)",
        ),
        "max_bad_records": Field(
            0, at_least(0), "Largest number of damaged records that are skipped"
        ),
        "mean_rgb": Field((), rgb_or_empty(), "Mean of R, G, B that is subtracted"),
        "pixel_scale": Field(58.0, above(0), "Divisor of pixels minus the mean"),
        "channel_order": Field("rgb", one_of("rgb", "bgr"), "Order of the channels"),
        "shuffle_images": Field(4096, at_least(1), "Records in the shuffle buffer"),
        "interleave_files": Field(8, at_least(1), "Files that a rank reads at a time"),
        "decode_threads": Field(
            0, at_least(0), "Threads that decode pictures; 0: one per core"
        ),
        "prefetch_batches": Field(2, at_least(1), "Batches in the prefetch buffer"),
    },
    "convert": {
        "short_side": Field(256, at_least(0), "Short side in pixels; 0: unchanged"),
        "jpeg_quality": Field(90, between(50, 100), "Quality of re-encoded JPEGs"),
        "images_per_shard": Field(0, at_least(0), "Images per file; 0: automatic"),
        "eval_fraction": Field(
            0.2, from_to_below(0, 1), "Fraction of each class held out for evaluation"
        ),
        "eval_images": Field(
            0, at_least(0), "Pictures held out in total; 0: set by eval_fraction"
        ),
        "num_folds": Field(
            0, at_least(0), "Number of folds of cross-validation; 0: no folds"
        ),
        "fold": Field(0, at_least(0), "Fold that is held out, from 0"),
        "split_seed": Field(0, at_least(0), "Seed of the choice of held-out pictures"),
        "num_workers": Field(0, at_least(0), "Converting processes; 0: one per core"),
        "train_folder": Field(
            "", anything(), "Folder of training classes in data.path; empty: automatic"
        ),
        "validation_folder": Field(
            "", anything(), "Folder of the held-out classes; requires train_folder"
        ),
    },
    # The other fields of this section are the settings of the network.
    "model": {
        "network": Field(
            "alexnet", anything(), "Network: alexnet, a .py file or package.module"
        )
    },
    "optim": {
        "optimizer": Field("momentum", one_of(*OPTIMIZERS), "Optimizer"),
        "learning_rate": Field(
            0.01, above(0), "Peak learning rate, before it is scaled"
        ),
        "learning_rate_scaling": Field(
            "none",
            one_of("none", "linear", "sqrt"),
            "Scaling of the learning rate with the number of ranks",
        ),
        "momentum": Field(0.9, from_to_below(0, 1), "Momentum, or beta1 of Adam"),
        "use_nesterov": Field(False, anything(), "Nesterov momentum"),
        "weight_decay": Field(5e-4, at_least(0), "L2 factor of weights, not of biases"),
        "class_weights": Field(
            "none", class_weights(), "Factor of the loss for each class"
        ),
        "label_smoothing": Field(0.0, from_to_below(0, 1), "Label smoothing"),
        "schedule": Field(
            "cosine",
            one_of("constant", "step", "cosine", "polynomial", "plateau"),
            "Schedule of the learning rate",
        ),
        "warmup_epochs": Field(0.0, at_least(0), "Epochs of linear warm-up from 0"),
        "decay_epochs": Field(
            (), increasing_epochs(), "step: epochs at which the learning rate decays"
        ),
        "decay_factor": Field(
            0.1, between(1e-6, 1), "step, plateau: factor of each decay"
        ),
        "end_learning_rate": Field(
            0.0, at_least(0), "cosine, polynomial: final learning rate"
        ),
        "polynomial_power": Field(1.0, above(0), "polynomial: power; 1 is linear"),
        "plateau_patience_epochs": Field(
            10.0, above(0), "plateau: epochs without progress before a decay"
        ),
        "plateau_min_gain": Field(
            0.02, at_least(0), "plateau: gain in accuracy that counts as progress"
        ),
        "ema_decay": Field(
            0.0, from_to_below(0, 1), "Decay of the moving average of weights; 0: off"
        ),
        "gradient_clip_norm": Field(
            0.0, at_least(0), "Maximum global norm of the gradients; 0: no clipping"
        ),
    },
    "warm_start": {
        "path": Field("", PATH, "Run, checkpoint or bvlc_alexnet.npy to start from"),
        "frozen_until": Field(
            "",
            anything(),  # One of the layers below the head of the network.
            "Last layer that is frozen, with all layers before it",
        ),
        "learning_rate_factor": Field(
            1.0, above(0), "Factor of the learning rate of restored layers"
        ),
    },
    "precision": {
        "mode": Field(
            "auto",
            one_of(*PRECISION_MODES, *PRECISION_ALIASES),
            "Precision of the computation",
        ),
        "loss_scale": Field(
            "auto",
            loss_scale(),
            "Loss scale; auto: dynamic in mixed precision, else none",
        ),
        "gradient_compression": Field(
            "none", one_of("none", "fp16"), "Compression of gradients between ranks"
        ),
        "initial_loss_scale": Field(32768.0, at_least(1), "dynamic: initial scale"),
        "growth_steps": Field(2000, at_least(1), "dynamic: finite steps before growth"),
        "growth_factor": Field(2.0, above(1), "dynamic: growth factor"),
        "decrease_after_overflows": Field(
            1, at_least(1), "dynamic: skipped steps before a decrease"
        ),
        "decrease_factor": Field(0.5, between(0.01, 0.99), "dynamic: decrease factor"),
        "min_loss_scale": Field(1.0, at_least(1), "dynamic: smallest scale"),
        "max_loss_scale": Field(2.0**24, at_least(1), "dynamic: largest scale"),
        "max_skipped_steps": Field(
            50,
            at_least(1),
            "Largest number of overflows in a row; more end the run (exit code 4)",
        ),
    },
    "train": {
        "batch_size_per_rank": Field(100, at_least(1), "Images per rank and step"),
        "epochs": Field(90.0, at_least(0), "Epochs in total, if steps is 0"),
        "steps": Field(0, at_least(0), "Global steps in total; 0: set by train.epochs"),
        "eval_every_epochs": Field(
            1.0, at_least(0), "Epochs between evaluations; 0: only at the end"
        ),
        "save_every_steps": Field(
            0, at_least(0), "Steps between checkpoints; 0: at evaluations"
        ),
        "save_every_secs": Field(
            600, at_least(0), "Seconds between checkpoints; 0: not by time"
        ),
        "keep_checkpoints": Field(
            3, at_least(1), "Newest checkpoints that are kept, besides the best one"
        ),
        "log_every_steps": Field(
            10, at_least(1), "Steps between lines of progress and of metrics.jsonl"
        ),
        "target_accuracy": Field(
            0.0, between(0, 1), "Accuracy that ends the run early; 0: none"
        ),
        "patience_epochs": Field(
            0.0,
            at_least(0),
            "Epochs without a better accuracy that end the run early; 0: no limit",
        ),
        "seed": Field(
            0, between(0, 2**31 - 1), "Seed of weights, order, augmentation, dropout"
        ),
    },
    "runtime": {
        "device": Field("auto", _DEVICE, "Device of the computation"),
        "num_threads": Field(0, at_least(0), "CPU threads of a rank; 0: all cores"),
    },
    # Arguments of NPURunConfig.  "auto", "", () and 0 leave an argument to the
    # installed release of npu_bridge.
    "npu": {
        "iterations_per_loop": Field(
            0, at_least(0), "Steps per call of session.run; 0: about one second"
        ),
        "hcom_parallel": Field("auto", _SWITCH, "All-reduce during the backward pass"),
        "gradient_split": Field(
            (), percentages(), "Parts of the gradients in percent, e.g. (60, 19, 21)"
        ),
        "hccl_timeout_secs": Field(0, between(0, 17340), "Timeout of HCCL in seconds"),
        "op_execute_timeout_secs": Field(
            0, at_least(0), "Timeout of one operator in seconds"
        ),
        "modify_mixlist": Field("", PATH, "JSON file of operators for mixed precision"),
        "high_precision_ops": Field(
            (),
            anything(),
            "Operator types with a more precise implementation, e.g. ('LRN',)",
        ),
        "seed_dropout": Field(
            False, anything(), "Dropout masks that depend on train.seed"
        ),
        "deterministic": Field("auto", _SWITCH, "Same order of sums in every run"),
        "enable_data_pre_proc": Field(
            "auto", _SWITCH, "Operator GetNext on the device instead of the host"
        ),
        "variable_format_optimize": Field(
            "auto", _SWITCH, "Weights in the format of the device"
        ),
        "aoe_mode": Field(
            "auto", one_of("auto", "1", "2", "4"), "Mode of AOE, the tuner since 2022"
        ),
        "auto_tune_mode": Field(
            "", anything(), "Modes of Auto Tune, the tuner until 2022, e.g. RL,GA"
        ),
        "profiling_options": Field("", anything(), "JSON text that enables profiling"),
        "dump_path": Field("", PATH, "Existing folder for dumps of tensors"),
        "dump_steps": Field("", anything(), "Dumped steps, e.g. 0|5|10-20; empty: all"),
        "dump_mode": Field(
            "output", one_of("input", "output", "all", "overflow"), "Tensors to dump"
        ),
    },
}
