"""A session: what every job opens first, which is configuration, runtime and data."""

import contextlib
import dataclasses
import os
import platform
import sys
from typing import Dict, Iterator, Optional

import numpy as np

import alexnet_estimator
from alexnet_estimator import inputs, records, run_record
from alexnet_estimator.config import Config, resolve, validate
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import DataError
from alexnet_estimator.jobs.loops import Loop, choose_loop
from alexnet_estimator.networks import find_network
from alexnet_estimator.optim import schedules
from alexnet_estimator.records.dataset import Dataset
from alexnet_estimator.run_record import RunRecord
from alexnet_estimator.runtime import make_runtime, settle_precision
from alexnet_estimator.runtime.base import Runtime


@dataclasses.dataclass(frozen=True)
class Run:
    """One job on one rank.

    Attributes:
        config: resolved: nothing in it is left to be measured or chosen.
        model_dir: absolute.
        runtime: this rank.
        dataset: what is read.
        loop: Steps in one call of ``session.run``.
    """

    config: Config
    model_dir: str
    runtime: Runtime
    dataset: Dataset
    loop: Loop = Loop(1)

    @property
    def global_batch_size(self) -> int:
        """Images in a step of all ranks."""
        return self.config.train.batch_size_per_rank * self.runtime.num_ranks

    @property
    def steps_per_epoch(self) -> int:
        """Global steps in which about every image is seen once."""
        num_images = self.dataset.splits["train"].num_images
        return max(1, round(num_images / self.global_batch_size))

    @property
    def total_steps(self) -> int:
        """Global steps of the whole run, restarts included, whole loops of a device."""
        train, loop = self.config.train, self.loop.num_steps
        by_epochs = round(train.epochs * self.steps_per_epoch / loop)
        return train.steps or max(1, by_epochs) * loop

    @property
    def eval_every_steps(self) -> int:
        """Global steps between evaluations, whole loops of the device."""
        every_epochs = self.config.train.eval_every_epochs
        if every_epochs == 0:
            return self.total_steps
        loop = self.loop.num_steps
        return max(1, round(every_epochs * self.steps_per_epoch / loop)) * loop

    @property
    def learning_rate_plan(self) -> schedules.LearningRatePlan:
        """The learning rate of every global step."""
        return schedules.plan_learning_rate(
            self.config.optim,
            self.steps_per_epoch,
            self.total_steps,
            self.runtime.num_ranks,
        )

    @property
    def reader(self) -> inputs.Reader:
        """This rank's part of the data."""
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
    """Choose the runtime, open the data and settle what depends on them.

    Args:
        config: Configuration, which stays as it is.
        model_dir: Folder of the run; raw pictures are converted into one beside it.
        runtime: Runtime of this process; None: the one that configuration and
            environment ask for.
        dataset: Data of the run; None: those of the configuration.
        verb: Name of the subcommand: ``train`` and ``benchmark`` need more of the
            engine, and only ``train`` may take up another state of the pictures.

    Raises:
        ConfigError: The configuration is wrong, or the device or the precision is not
            available.
        DataError: The data cannot be used.
    """
    validate(config, verb)
    runtime = runtime or make_runtime(config)
    mode = settle_precision(config.precision.mode, runtime.device)
    model_dir = os.path.abspath(model_dir)
    dataset = dataset or open_data(config, model_dir, verb == "train")
    if dataset.splits["train"].num_images == 0:
        raise DataError("the split train has no images", dataset.directory)
    run = Run(config, model_dir, runtime, dataset)
    loop = choose_loop(config, run.steps_per_epoch) if runtime.can_loop else Loop(1)
    config = resolve(config, mode, dataset.mean_rgb, loop.num_steps)
    return dataclasses.replace(run, config=config, loop=loop)


def open_data(config: Config, model_dir: str, is_training: bool = True) -> Dataset:
    """Open converted data, or convert raw pictures beside ``model_dir`` first.

    Args:
        config: Configuration of the job.
        model_dir: Folder of the run.
        is_training: If not, the data that the run has recorded are opened as they were
            converted, even if the pictures have changed since.
    """
    if config.data.synthetic:
        return inputs.synthetic_dataset(config.data)
    digest = ""
    path = run_record.path_of(model_dir)
    if not is_training and os.path.isfile(path):
        record = run_record.read(path, config.model.network)
        old = record.config
        # A frozen section never equals one that is not.
        is_same = dict(old.convert) == dict(config.convert)
        if is_same and old.data.path == config.data.path:
            digest = record.data_digest
    return records.open_dataset(
        config.data.path,
        _cache_of(model_dir),
        config.convert,
        config.data.label_offset,
        config.data.max_bad_records,
        digest,
    )


def preview_data(config: Config, model_dir: str) -> Dataset:
    """Return the data of a run as far as they are known without converting them."""
    if config.data.synthetic:
        return inputs.synthetic_dataset(config.data)
    data, cache = config.data, _cache_of(model_dir)
    return records.preview_dataset(data.path, cache, config.convert, data.label_offset)


def _cache_of(model_dir: str) -> str:
    """Return the folder beside a run into which its pictures are converted."""
    return os.path.abspath(model_dir).rstrip(os.sep) + ".data"


def check_fit(run: Run, is_training: bool) -> Optional[RunRecord]:
    """Return the record of the run in the folder; see ``run_record.check_fit``."""
    return run_record.check_fit(
        run.model_dir, run.config, run.dataset.class_names, is_training
    )


def make_record(run: Run) -> RunRecord:
    """Return what ``config.json`` says about a run."""
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
    """Return the versions that a result depends on."""
    return {
        "alexnet_estimator": alexnet_estimator.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
    }


@contextlib.contextmanager
def explaining_data_errors(run: Run) -> Iterator[None]:
    """Say which record is damaged, or that another rank has ended.

    Raises:
        DataError: In place of TensorFlow's error, if a record is damaged.
        RankError: Another rank has ended.
    """
    with contextlib.ExitStack() as stack:
        if not run.config.data.synthetic:
            stack.enter_context(inputs.naming_damage(run.dataset, run.reader))
        stack.enter_context(run.runtime.noticing_lost_ranks())
        yield
