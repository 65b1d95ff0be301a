"""The self-test: twenty training steps on generated pictures, with known results.

Checks of the graph cannot tell whether a device computes the right values, so this test
computes and compares them.
"""

import hashlib
import tempfile
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from alexnet_estimator.config import Config, config_from, resolve
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.finding import FAILURE, OK, Finding, require
from alexnet_estimator.hooks.answers import AnswersHook
from alexnet_estimator.hooks.step_tensors import StepTensors
from alexnet_estimator.model_fn import Training, build_model_fn
from alexnet_estimator.optim import schedules
from alexnet_estimator.runtime import make_runtime, settle_precision
from alexnet_estimator.runtime.base import Runtime

NUM_STEPS = 20
NUM_OVERFLOWS = 3
NUM_CLASSES = 4
BATCH_SIZE = 64
NUM_EVAL_BATCHES = 40  # 2,560 images: more than float16 can count.
IMAGE_SIZE = 63
# Relative error.  Rounding to float16 gives 0.0005, and its overflow much more.
LRN_TOLERANCE = 0.01
RADIUS, BIAS, ALPHA, BETA = 2, 2.0, 1e-4, 0.75
TROUBLE = "attach the whole output to a bug report"


def run_self_test(device: str) -> List[Finding]:
    """Train and evaluate a few steps; return the findings of all ranks.

    Every rank of the job has to call this function.

    Args:
        device: Name of the accelerator.

    Raises:
        ConfigError: The runtime cannot be created.
    """
    config = _make_config(device)
    runtime = make_runtime(config)
    mode = settle_precision(config.precision.mode, runtime.device)
    config = resolve(config, mode)
    with tempfile.TemporaryDirectory(prefix="alexnet-doctor-") as folder:
        findings = _train(runtime, config, folder)
        findings += _evaluate(runtime, config, folder)
    with tempfile.TemporaryDirectory(prefix="alexnet-doctor-") as folder:
        findings += _overflow(runtime, _make_config(device, pixel_scale=1e-37), folder)
    return _join_findings(runtime, findings)


def _join_findings(runtime: Runtime, findings: List[Finding]) -> List[Finding]:
    """Return the findings of this rank, with failures on other ranks added to them."""
    rows = runtime.gather([finding.state == FAILURE for finding in findings])
    failed = [np.flatnonzero(states).tolist() for states in rows.T]
    return [
        require(finding.name, False, f"fails on ranks {ranks}: see their logs", TROUBLE)
        if ranks and finding.state == OK
        else finding
        for finding, ranks in zip(findings, failed)
    ]


def _make_config(device: str, pixel_scale: float = 58.0) -> Config:
    return config_from(
        {
            "data": {
                "image_size": IMAGE_SIZE,
                "mean_rgb": (127.5, 127.5, 127.5),
                "pixel_scale": pixel_scale,
            },
            "model": {"width_multiplier": 1 / 16, "keep_prob": 0.9},
            "optim": {"learning_rate": 0.005, "schedule": "constant"},
            "precision": {"loss_scale": "1024"},
            "runtime": {"device": device},
            "train": {"batch_size_per_rank": BATCH_SIZE, "steps": NUM_STEPS},
        }
    )


def _make_batch(rank: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return pictures whose colours show their classes.

    Returns:
        The pictures, uint8 [batch, size, size, 3], and the labels, int32 [batch].
    """
    random = np.random.RandomState(rank)
    labels = random.randint(0, NUM_CLASSES, [BATCH_SIZE]).astype(np.int32)
    colours = np.array([[220, 40, 40], [40, 220, 40], [40, 40, 220], [200, 200, 40]])
    noise = random.randint(-40, 40, [BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3])
    # [batch, 3] -> [batch, 1, 1, 3], which is broadcast over the noise.
    pictures = colours[labels][:, np.newaxis, np.newaxis, :] + noise
    return np.clip(pictures, 0, 255).astype(np.uint8), labels


class _Probe(tf.train.SessionRunHook):
    """Hook that records tensors at each step and the weights of the network.

    Attributes:
        seen: Values of the tensors at each step.
        weights: Weights after the first step; after the training, the last ones.
        first_weights: Weights after the first step, set at the end of the training.
        end_values: Values of ``step`` and ``num_skipped``, if they were given, and of
            ``global_step`` after the training.
    """

    def __init__(self, tensors: Dict[str, tf.Tensor], num_calls: Optional[int] = None):
        self._tensors, self._num_calls = tensors, num_calls
        self.seen: List[Dict[str, Any]] = []
        self.weights: List[np.ndarray] = []
        self.end_values: Dict[str, Any] = {}

    def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
        return tf.train.SessionRunArgs(self._tensors)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self.seen.append(run_values.results)
        if len(self.seen) == 1:
            self.weights = run_context.session.run(tf.trainable_variables())
        if len(self.seen) == self._num_calls:
            run_context.request_stop()

    def end(self, session: tf.Session) -> None:
        names = ("step", "num_skipped")
        fetches = {name: self._tensors[name] for name in names if name in self._tensors}
        self.first_weights = self.weights
        self.weights = session.run(tf.trainable_variables())
        step = tf.train.get_global_step()
        self.end_values = session.run({**fetches, "global_step": step})


def _run(
    runtime: Runtime, config: Config, folder: str, num_calls: Optional[int]
) -> _Probe:
    """Train in a folder and return the probe with the recorded values.

    Args:
        runtime: Runtime of the accelerator.
        config: Resolved configuration.
        folder: Folder of the checkpoints.
        num_calls: Number of steps, skipped ones included; None to train for
            ``NUM_STEPS`` global steps.
    """
    probes: List[_Probe] = []

    def make_hooks(tensors: StepTensors) -> List[tf.train.SessionRunHook]:
        fetched = {"loss": tensors.loss, "num_skipped": tensors.num_skipped}
        if num_calls is None:
            fetched.update(_make_probed(runtime, tensors.step))
        probes.append(_Probe(fetched, num_calls))
        return [probes[-1]]

    plan = schedules.plan_learning_rate(config.optim, NUM_STEPS, NUM_STEPS)
    training = Training(plan, 1.0, make_hooks)
    model_fn = build_model_fn(config, NUM_CLASSES, runtime, training)
    pictures, labels = _make_batch(runtime.rank)

    def input_fn() -> tf.data.Dataset:
        batch = ({"image": pictures}, labels)
        return tf.data.Dataset.from_tensors(batch).repeat()

    estimator = runtime.make_estimator(model_fn, folder, config)
    estimator.train(input_fn, max_steps=NUM_STEPS)
    return probes[-1]


def _make_probed(runtime: Runtime, step: tf.Tensor) -> Dict[str, tf.Tensor]:
    """Return a dropout mask, and activations after local response normalisation.

    The squares of the activations are too large for float16.
    """
    # This is always 0, but no compiler knows that.  Otherwise it would compute these
    # constant expressions on the CPU while it compiles, and the device would not be
    # tested.
    zero = tf.cast(tf.minimum(step, 0), tf.float32)
    seed = tf.stack([tf.constant(1), tf.cast(step, tf.int32)])
    mask = runtime.dropout(tf.ones([64, 64]) + zero, 0.5, seed)
    lrn = tf.nn.lrn(_make_activations() + zero, RADIUS, BIAS, ALPHA, BETA)
    return {"mask": mask, "lrn": lrn}


def _make_activations() -> np.ndarray:
    random = np.random.RandomState(0)
    return (random.rand(1, 4, 4, 16) * 500).astype(np.float32)


def normalise_in_numpy(x: np.ndarray) -> np.ndarray:
    """Compute local response normalisation (Krizhevsky et al., 2012, section 3.3).

    Args:
        x: Activations, float32 [batch, height, width, channels].

    Returns:
        float64 in the shape of ``x``.
    """
    x = x.astype(np.float64)
    padded = np.pad(x**2, [(0, 0)] * 3 + [(RADIUS, RADIUS)], "constant")
    windows = [padded[..., i : i + x.shape[-1]] for i in range(2 * RADIUS + 1)]
    return x / (BIAS + ALPHA * sum(windows)) ** BETA


def _train(runtime: Runtime, config: Config, folder: str) -> List[Finding]:
    probe = _run(runtime, config, folder, None)
    losses = [float(seen["loss"]) for seen in probe.seen]
    first, last = np.mean(losses[:3]), np.mean(losses[-3:])
    masks = [seen["mask"] for seen in probe.seen]
    kept = float(np.mean([mask > 0 for mask in masks]))
    has_new_masks = all((a != b).any() for a, b in zip(masks, masks[1:]))
    expected = normalise_in_numpy(_make_activations())
    errors = [np.abs(seen["lrn"] - expected) / expected for seen in probe.seen]
    error = float(np.max(errors))
    return [
        require("loss", last < 0.9 * first, f"{first:.3f} -> {last:.3f}", TROUBLE),
        require(
            "dropout",
            has_new_masks and 0.45 < kept < 0.55,
            f"{kept:.3f} kept, masks of two steps "
            + ("differ" if has_new_masks else "are the same"),
            "leave npu.seed_dropout off; else " + TROUBLE,
        ),
        require(
            "LRN",
            error < LRN_TOLERANCE,
            f"largest relative error {error:.2g}",
            "the compiler lowers it to float16: set npu.modify_mixlist, or "
            "--precision_mode=float32",
        ),
        _compare_ranks(runtime, probe.weights),
    ]


def _compare_ranks(runtime: Runtime, weights: List[np.ndarray]) -> Finding:
    digest = hashlib.sha256(b"".join(value.tobytes() for value in weights)).hexdigest()
    rows = runtime.gather([int(digest[:12], 16), int(digest[12:24], 16)])
    differing = [rank for rank, row in enumerate(rows) if (row != rows[0]).any()]
    seen = (
        f"ranks {differing} differ from rank 0" if differing else f"{len(rows)} equal"
    )
    return require("weights of all ranks", not differing, seen, TROUBLE)


def _evaluate(runtime: Runtime, config: Config, folder: str) -> List[Finding]:
    pictures, labels = _make_batch(runtime.rank)

    def input_fn() -> tf.data.Dataset:
        features = {"image": pictures, "weight": np.ones([BATCH_SIZE], np.float32)}
        return tf.data.Dataset.from_tensors((features, labels)).repeat()

    model_fn = build_model_fn(config, NUM_CLASSES, runtime)
    estimator = runtime.make_estimator(model_fn, folder, config)
    answers = AnswersHook(runtime.rank)
    sums = estimator.evaluate(input_fn, steps=NUM_EVAL_BATCHES, hooks=[answers])
    num_images = NUM_EVAL_BATCHES * BATCH_SIZE * runtime.num_ranks
    # There are only four classes, so the right one is always among the first five.
    found = (sums["num_images"], sums["num_top_5"])
    own = np.bincount(labels, minlength=NUM_CLASSES) * NUM_EVAL_BATCHES
    rows = answers.rows
    counted = np.bincount(rows[:, 0], weights=rows[:, 2], minlength=NUM_CLASSES)
    is_exact = found == (num_images, num_images) and np.array_equal(counted, own)
    seen = f"{found[0]} of {num_images} images, {found[1]} among the first five"
    return [require("counts of evaluation", is_exact, seen, TROUBLE)]


def _overflow(runtime: Runtime, config: Config, folder: str) -> List[Finding]:
    """Train with values that overflow, so that loss scaling must skip every step."""
    mode = settle_precision(config.precision.mode, runtime.device)
    probe = _run(runtime, resolve(config, mode), folder, NUM_OVERFLOWS)
    step, skipped = probe.end_values["global_step"], probe.end_values["num_skipped"]
    pairs = zip(probe.first_weights, probe.weights)
    is_unchanged = all(np.array_equal(before, after) for before, after in pairs)
    is_good = (step, skipped) == (0, NUM_OVERFLOWS) and is_unchanged
    seen = f"{skipped} of {NUM_OVERFLOWS} steps skipped, global step {step}"
    seen += ", weights " + ("unchanged" if is_unchanged else "changed")
    return [require("overflow", is_good, seen, TROUBLE)]
