"""The schema of the configuration: every field's default, rule and meaning.

No TensorFlow is imported here.
"""

import dataclasses
import math
from typing import Any, Callable, Dict, NamedTuple

MAX_NUMBER = 2.0**63
# The part of a picture's short side that a crop covers: the paper's 227 of 256.
CROP_FRACTION = 227 / 256


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test."""

    text: str
    accepts: Callable[[Any], bool]


def anything() -> Rule:
    """Return a rule that every value follows."""
    return Rule("any value", lambda value: True)


PATH = Rule("a path", lambda value: True)


def one_of(*choices: Any) -> Rule:
    """Return a rule for a choice."""
    names = [str(choice) or "''" for choice in choices]
    return Rule("one of " + ", ".join(names), lambda v: v in choices)


def at_least(low: float) -> Rule:
    """Return a rule for numbers that are ``low`` or more."""
    return Rule(f"at least {low}", lambda v: _is_number(v) and v >= low)


def above(low: float) -> Rule:
    """Return a rule for numbers that are more than ``low``."""
    return Rule(f"above {low}", lambda v: _is_number(v) and v > low)


def between(low: float, high: float) -> Rule:
    """Return a rule for numbers from ``low`` to ``high``, both included."""
    return Rule(f"from {low} to {high}", lambda v: low <= v <= high)


def from_to_below(low: float, high: float) -> Rule:
    """Return a rule for numbers from ``low``, included, to ``high``, excluded."""
    return Rule(f"at least {low} and below {high}", lambda v: low <= v < high)


def _increasing_epochs() -> Rule:
    return Rule(
        "increasing positive numbers of epochs, e.g. (30, 60, 80)",
        lambda v: all(_is_number(x) and x > 0 for x in v)
        and all(a < b for a, b in zip(v, v[1:])),
    )


def _rgb_or_empty() -> Rule:
    return Rule(
        "three numbers from 0 to 255, or () to take them from dataset.json",
        lambda v: len(v) in (0, 3) and all(_is_number(x) and 0 <= x <= 255 for x in v),
    )


def _fractions() -> Rule:
    return Rule(
        "two numbers, 0.1 <= least <= most <= 1, e.g. (0.5, 1.0)",
        lambda v: len(v) == 2
        and all(_is_number(x) for x in v)
        and 0.1 <= v[0] <= v[1] <= 1,
    )


def _percentages() -> Rule:
    return Rule(
        "up to 8 positive numbers with the sum 100, or ()",
        lambda v: len(v) <= 8
        and all(_is_number(x) and x > 0 for x in v)
        and sum(v) in (0, 100),
    )


def _device() -> Rule:
    names = ", ".join(["auto", *sorted(ACCELERATORS)])
    return Rule(f"one of {names}", lambda v: v == "auto" or v in ACCELERATORS)


def _loss_scale() -> Rule:
    return Rule(
        "auto, dynamic, none or a number from 1 to 1e38",
        lambda v: v in ("auto", "dynamic", "none") or 1 <= _parse_number(v) <= 1e38,
    )


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Whole numbers that no float or int64 can hold are none here, nor are NaN and Inf.
    return is_real and abs(value) < MAX_NUMBER


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return -math.inf
    return number if math.isfinite(number) else -math.inf


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
        default: Default value, which also fixes the type.
        rule: What a value must be.
        doc: Meaning, in a few words.
        is_fixed: Whether a run keeps its value for good, because the shapes of its
            variables depend on it.
    """

    default: Any
    rule: Rule
    doc: str
    is_fixed: bool = False

    def describe_values(self) -> str:
        """Return what the field may be: its type, and its rule where it has one."""
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
    """The registration of what can train.

    Attributes:
        accelerator: Class of ``runtime.Accelerator``, as ``module:class``.
        launch_backend: Name of the environment of its ranks, in ``launch.BACKENDS``.
        adapter: Name of the vendor's package, where that needs TensorFlow 1.15.
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

PRECISION_MODES = {
    # The vendor's names, and what each computes on CPUs and GPUs.
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

_SWITCH = one_of("auto", "on", "off")

SCHEMA: Dict[str, Dict[str, Field]] = {
    "data": {
        "path": Field("", PATH, "converted data, a picture folder or a zip of one"),
        "synthetic": Field(False, anything(), "made-up pictures instead of data.path"),
        "synthetic_classes": Field(1000, at_least(2), "classes of the synthetic data"),
        "label_offset": Field(
            0, anything(), "subtracted from labels; 1 for ImageNet's"
        ),
        "image_size": Field(227, at_least(1), "height and width of the crop, pixels"),
        "use_augmentation": Field(
            True, anything(), "random crop and flip (paper, 4.1)"
        ),
        "crop_fractions": Field(
            (CROP_FRACTION, CROP_FRACTION),
            _fractions(),
            "least and most of the short side that a training crop has",
        ),
        "colour_noise_std": Field(
            0.0, at_least(0), "PCA colour noise (paper 4.1 uses 0.1); 0: off"
        ),
        "use_ten_crop": Field(
            False, anything(), "evaluate, predict: average 10 views (paper, 4.1)"
        ),
        "max_bad_records": Field(
            0, at_least(0), "damaged ones to leave out; 0: the first ends training"
        ),
        "mean_rgb": Field((), _rgb_or_empty(), "subtracted from R, G, B; (): measured"),
        "pixel_scale": Field(58.0, above(0), "divides pixels after the mean"),
        "channel_order": Field("rgb", one_of("rgb", "bgr"), "as the model sees them"),
        "shuffle_images": Field(4096, at_least(1), "records held for shuffling"),
        "interleave_files": Field(8, at_least(1), "files a rank reads at a time"),
        "decode_threads": Field(0, at_least(0), "parallel decoders; 0: all cores"),
        "prefetch_batches": Field(2, at_least(1), "batches made ahead"),
    },
    "convert": {
        "short_side": Field(256, at_least(0), "resize to this, pixels; 0: keep"),
        "jpeg_quality": Field(90, between(50, 100), "quality of re-encoded pictures"),
        "images_per_shard": Field(0, at_least(0), "at most, in a file; 0: chosen"),
        "eval_fraction": Field(0.2, from_to_below(0, 1), "held out, of each class"),
        "eval_images": Field(0, at_least(0), "held out in all; 0: by fraction"),
        "split_seed": Field(0, at_least(0), "decides which pictures are held out"),
        "num_workers": Field(0, at_least(0), "processes; 0: one for each core"),
        "train_folder": Field(
            "", anything(), "class folders are here, below data.path; empty: found out"
        ),
        "validation_folder": Field(
            "", anything(), "the same of held-out pictures; goes with train_folder"
        ),
    },
    # The other fields of this section are the settings of the network.
    "model": {
        "network": Field("alexnet", anything(), "alexnet, a .py file or package.module")
    },
    "optim": {
        "optimizer": Field("momentum", one_of("momentum", "adam", "lars"), "rule"),
        "learning_rate": Field(0.01, above(0), "peak, for one rank"),
        "learning_rate_scaling": Field(
            "none", one_of("none", "linear", "sqrt"), "with the number of ranks"
        ),
        "momentum": Field(0.9, from_to_below(0, 1), "beta1 of adam"),
        "use_nesterov": Field(False, anything(), "Nesterov momentum"),
        "weight_decay": Field(5e-4, at_least(0), "L2 on weights, not on biases"),
        "label_smoothing": Field(0.0, from_to_below(0, 1), "of the targets"),
        "schedule": Field(
            "cosine",
            one_of("constant", "step", "cosine", "polynomial", "plateau"),
            "of the learning rate",
        ),
        "warmup_epochs": Field(0.0, at_least(0), "linear warm-up from 0"),
        "decay_epochs": Field((), _increasing_epochs(), "step: where the rate falls"),
        "decay_factor": Field(0.1, between(1e-6, 1), "step, plateau: multiplies"),
        "end_learning_rate": Field(0.0, at_least(0), "cosine, polynomial: the last"),
        "polynomial_power": Field(1.0, above(0), "polynomial: 1 is linear"),
        "plateau_patience_epochs": Field(10.0, above(0), "plateau: looks this far"),
        "plateau_min_gain": Field(0.02, at_least(0), "plateau: accuracy to gain"),
        "ema_decay": Field(0.0, from_to_below(0, 1), "average of weights; 0: off"),
        "gradient_clip_norm": Field(0.0, at_least(0), "global norm; 0: no clipping"),
    },
    "warm_start": {
        "path": Field("", PATH, "a run, a checkpoint or bvlc_alexnet.npy"),
        "frozen_until": Field(
            "",
            anything(),  # One of the layers below the head of the network.
            "the last layer that keeps its weights, as do those before it",
        ),
        "learning_rate_factor": Field(1.0, above(0), "for the restored layers"),
    },
    "precision": {
        "mode": Field(
            "auto",
            one_of(*PRECISION_MODES, *PRECISION_ALIASES),
            "number formats",
        ),
        "loss_scale": Field("auto", _loss_scale(), "auto: dynamic if mixed, else none"),
        "initial_loss_scale": Field(32768.0, at_least(1), "dynamic: the first scale"),
        "growth_steps": Field(2000, at_least(1), "dynamic: finite steps to grow"),
        "growth_factor": Field(2.0, above(1), "dynamic: multiplies after growth_steps"),
        "decrease_after_overflows": Field(1, at_least(1), "dynamic: skips to shrink"),
        "decrease_factor": Field(0.5, between(0.01, 0.99), "dynamic: then multiplies"),
        "min_loss_scale": Field(1.0, at_least(1), "dynamic: never below"),
        "max_loss_scale": Field(2.0**24, at_least(1), "dynamic: never above"),
        "max_skipped_steps": Field(50, at_least(1), "overflows in a row, then exit 4"),
    },
    "train": {
        "batch_size_per_rank": Field(100, at_least(1), "images in a rank's step"),
        "epochs": Field(90.0, at_least(0), "used where steps is 0"),
        "steps": Field(0, at_least(0), "global steps in all; 0: by epochs"),
        "eval_every_epochs": Field(1.0, at_least(0), "0: at the end only"),
        "save_every_steps": Field(0, at_least(0), "0: at evaluations"),
        "save_every_secs": Field(600, at_least(0), "also by the clock; 0: not"),
        "keep_checkpoints": Field(3, at_least(1), "the last ones; the best is kept"),
        "log_every_steps": Field(10, at_least(1), "progress and metrics.jsonl"),
        "target_accuracy": Field(0.0, between(0, 1), "ends the run early; 0: not"),
        "seed": Field(0, between(0, 2**31 - 1), "of all randomness"),
    },
    "runtime": {
        "device": Field("auto", _device(), "trains on this"),
        "num_threads": Field(0, at_least(0), "CPU threads of a rank; 0: all"),
    },
    # Arguments of NPURunConfig.  "auto", "", () and 0 leave one to the installed
    # release of npu_bridge.
    "npu": {
        "iterations_per_loop": Field(
            0, at_least(0), "steps between two hook calls; 0: about a second"
        ),
        "hcom_parallel": Field("auto", _SWITCH, "send gradients while computing more"),
        "gradient_split": Field(
            (), _percentages(), "parts in which gradients are sent, e.g. (60, 19, 21)"
        ),
        "hccl_timeout_secs": Field(0, between(0, 17340), "wait for the other ranks"),
        "op_execute_timeout_secs": Field(0, at_least(0), "limit for one operator"),
        "modify_mixlist": Field("", PATH, "JSON file: which operators use float16"),
        "high_precision_ops": Field((), anything(), "operator types, e.g. ('LRN',)"),
        "seed_dropout": Field(
            False, anything(), "masks of dropout follow from train.seed"
        ),
        "deterministic": Field("auto", _SWITCH, "same order of sums in every run"),
        "enable_data_pre_proc": Field("auto", _SWITCH, "GetNext runs on the device"),
        "variable_format_optimize": Field("auto", _SWITCH, "weights in device format"),
        "aoe_mode": Field("auto", one_of("auto", "1", "2", "4"), "tune, from 2022 on"),
        "auto_tune_mode": Field("", anything(), "tune, up to 2022, e.g. RL,GA"),
        "profiling_options": Field("", anything(), "JSON text; switches profiling on"),
        "dump_path": Field("", PATH, "existing folder; switches tensor dump on"),
        "dump_steps": Field("", anything(), "e.g. 0|5|10-20; all of them"),
        "dump_mode": Field(
            "output", one_of("input", "output", "all", "overflow"), "what is dumped"
        ),
    },
}
