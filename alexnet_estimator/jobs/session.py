"""The session of a job: its configuration, its runtime and its data."""

import contextlib
import dataclasses
import os
import platform
import sys
from typing import Dict, Iterator, Optional, Tuple

import numpy as np

import alexnet_estimator
from alexnet_estimator import inputs, run_record
from alexnet_estimator.config import TRAINING_VERBS, Config, resolve, validate
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.jobs.data import open_data
from alexnet_estimator.jobs.loops import Loop, choose_loop
from alexnet_estimator.networks import find_network
from alexnet_estimator.optim import schedules
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.run_record import RunRecord
from alexnet_estimator.runtime import (
    check_gradient_compression,
    make_runtime,
    settle_precision,
)
from alexnet_estimator.runtime.base import Runtime


@dataclasses.dataclass(frozen=True)
class Run:
    """A job on one rank.

    Attributes:
        config: Resolved configuration.
        model_dir: Absolute path of the folder of the run.
        runtime: Runtime of this rank.
        dataset: Data of the run.
        loop: Number of training steps in one call of ``session.run``.
        class_weights: Factor of the loss of each class; empty if all are 1.
    """

    config: Config
    model_dir: str
    runtime: Runtime
    dataset: Dataset
    loop: Loop = Loop(1)
    class_weights: Tuple[float, ...] = ()

    @property
    def global_batch_size(self) -> int:
        """Return the number of images in a step of all ranks."""
        return self.config.train.batch_size_per_rank * self.runtime.num_ranks

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of global steps of an epoch, rounded."""
        num_images = self.dataset.splits["train"].num_images
        return max(1, round(num_images / self.global_batch_size))

    @property
    def total_steps(self) -> int:
        """Return the number of global steps of the whole run, in whole loops."""
        train, loop = self.config.train, self.loop.num_steps
        by_epochs = round(train.epochs * self.steps_per_epoch / loop)
        return train.steps or max(1, by_epochs) * loop

    @property
    def eval_every_steps(self) -> int:
        """Return the number of global steps between evaluations, in whole loops."""
        every_epochs = self.config.train.eval_every_epochs
        if every_epochs == 0:
            return self.total_steps
        loop = self.loop.num_steps
        return max(1, round(every_epochs * self.steps_per_epoch / loop)) * loop

    @property
    def learning_rate_plan(self) -> schedules.LearningRatePlan:
        """Return the schedule of the learning rate."""
        return schedules.plan_learning_rate(
            self.config.optim,
            self.steps_per_epoch,
            self.total_steps,
            self.runtime.num_ranks,
        )

    @property
    def reader(self) -> inputs.Reader:
        """Return the reader of this rank's shard of the data."""
        return inputs.Reader(
            self.runtime.rank,
            self.runtime.num_ranks,
            self.config.train.batch_size_per_rank,
            self.config.train.seed,
        )


def open_run(
    config: Config,
    model_dir: str,
    runtime: Optional[Runtime] = None,
    dataset: Optional[Dataset] = None,
    verb: str = "train",
) -> Run:
    """Create the runtime, open the data and resolve the configuration.

    Args:
        config: Configuration, which stays unchanged.
        model_dir: Folder of the run; pictures are converted to a folder beside it.
        runtime: Runtime of this process; None for the runtime of the configuration and
            the environment variables.
        dataset: Data of the run; None for the data of the configuration.
        verb: Name of the subcommand.  ``train`` and ``benchmark`` need more of
            TensorFlow than the others, and they convert changed pictures again.

    Raises:
        ConfigError: The configuration is wrong, or the device or the precision is not
            available.
        DataError: The data cannot be used.
    """
    validate(config, verb)
    runtime = runtime or make_runtime(config)
    mode = settle_precision(config.precision.mode, runtime.device)
    model_dir = os.path.abspath(model_dir)
    # Other subcommands use the data that the run has recorded.  A benchmark must not
    # need a complete run record, because it only measures a configuration.
    is_training = verb in TRAINING_VERBS
    if is_training:
        compression = config.precision.gradient_compression
        check_gradient_compression(compression, runtime.device)
    dataset = dataset or open_data(config, model_dir, is_training)
    if dataset.splits["train"].num_images == 0:
        raise DataError("the split train has no images", dataset.directory)
    weights = _choose_class_weights(config, dataset)
    run = Run(config, model_dir, runtime, dataset, class_weights=weights)
    loop = choose_loop(config, run.steps_per_epoch) if runtime.can_loop else Loop(1)
    config = resolve(config, mode, dataset.mean_rgb, loop.num_steps)
    return dataclasses.replace(run, config=config, loop=loop)


def _choose_class_weights(config: Config, dataset: Dataset) -> Tuple[float, ...]:
    """Return the factor of the loss of each class; empty if all are 1.

    Balanced weights give all classes the same share of the loss.  Their mean over the
    training images is 1, so the learning rate keeps its meaning.
    """
    text, num_classes = config.optim.class_weights, dataset.num_classes
    if text == "none":
        return ()
    if text == "balanced":
        split = dataset.splits["train"]
        fair = split.num_images / num_classes
        return tuple(fair / max(1, number) for number in split.class_counts)
    weights = tuple(map(float, text.split(",")))
    if len(weights) != num_classes:
        raise ConfigError(
            f"optim.class_weights is {text!r}, which are {len(weights)} numbers: the "
            f"data has {num_classes} classes"
        )
    return weights


def check_fit(run: Run, is_training: bool) -> Optional[RunRecord]:
    """Compare a run with the run in its folder, and return the record of the latter.

    Raises:
        ConfigError: See ``run_record.check_fit`` and ``run_record.check_split``.
    """
    stored = run_record.check_fit(
        run.model_dir, run.config, run.dataset.class_names, is_training
    )
    if stored is not None:
        run_record.check_split(run.model_dir, stored, make_record(run))
    return stored


def make_record(run: Run) -> RunRecord:
    """Return the run record, which is written to ``config.json``."""
    splits = run.dataset.splits.items()
    return RunRecord(
        config=run.config,
        class_names=tuple(run.dataset.class_names),
        class_counts={name: list(split.class_counts) for name, split in splits},
        data_digest=run.dataset.digest,
        conversion=run.dataset.conversion,
        num_ranks=run.runtime.num_ranks,
        device=run.runtime.device,
        network=find_network(run.config.model.network).describe(),
        versions=versions(),
    )


def versions() -> Dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {
        "alexnet_estimator": alexnet_estimator.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
    }


@contextlib.contextmanager
def explaining_data_errors(run: Run) -> Iterator[None]:
    """Replace errors of TensorFlow by errors that name the cause.

    Raises:
        DataError: A record is damaged.
        RankError: Another rank has ended.
    """
    with contextlib.ExitStack() as stack:
        if not run.config.data.synthetic:
            stack.enter_context(inputs.naming_damage(run.dataset, run.reader))
        stack.enter_context(run.runtime.noticing_lost_ranks())
        yield
