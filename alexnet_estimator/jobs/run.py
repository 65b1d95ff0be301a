"""What every job starts from: configuration, runtime, data and derived numbers."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import platform
import shutil
import sys
from typing import Any, Dict, Iterator, List, Optional

import numpy as np

import alexnet_estimator
from alexnet_estimator import inputs, records
from alexnet_estimator.config import RECORD_FILE, Config, default_config, validate
from alexnet_estimator.console import STDOUT_NAME
from alexnet_estimator.engine.graph_mode import tf
from alexnet_estimator.errors import ConfigError, DataError
from alexnet_estimator.files import encode_json, write_bytes
from alexnet_estimator.networks import DEFAULT, find_network
from alexnet_estimator.optim import schedules
from alexnet_estimator.records.dataset import Dataset, Shard
from alexnet_estimator.records.verify import check_shards
from alexnet_estimator.runtime import make_runtime
from alexnet_estimator.runtime.base import Runtime

# What TensorFlow raises for damaged records, for pictures that are none, and for files
# that have gone.
_RECORD_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Run:
    """One job on one rank.

    Attributes:
        config: resolved: nothing in it is left to be measured or chosen.
        model_dir: absolute.
        runtime: this rank.
        dataset: what is read.
    """

    config: Config
    model_dir: str
    runtime: Runtime
    dataset: Dataset

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
        train, loop = self.config.train, self.runtime.steps_per_call
        by_epochs = round(train.epochs * self.steps_per_epoch / loop)
        return train.steps or max(1, by_epochs) * loop

    @property
    def eval_every_steps(self) -> int:
        """Global steps between evaluations, whole loops of the device."""
        every_epochs = self.config.train.eval_every_epochs
        if every_epochs == 0:
            return self.total_steps
        loop = self.runtime.steps_per_call
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


def open_run(config: Config, model_dir: str, runtime: Optional[Runtime] = None) -> Run:
    """Choose the runtime, open the data and settle what depends on them.

    Args:
        config: changed in place where it says "measure" or "auto".
        model_dir: of the run; raw pictures are converted into a folder beside it.
        runtime: None: the one that configuration and environment ask for.

    Raises:
        ConfigError: it is wrong, or the device or the precision is not available.
        DataError: the data cannot be used.
    """
    validate(config)
    model_dir = os.path.abspath(model_dir)
    runtime = runtime or make_runtime(config)
    dataset = open_data(config, model_dir)
    if not config.data.mean_rgb:
        config.data.mean_rgb = tuple(round(mean, 3) for mean in dataset.mean_rgb)
    if dataset.splits["train"].num_images == 0:
        raise DataError("the split train has no images", dataset.directory)
    _check_loop(config, runtime.steps_per_call)
    return Run(config, model_dir, runtime, dataset)


def _check_loop(config: Config, steps_per_call: int) -> None:
    """Refuse intervals that end within a loop of the device, where no hook is called.

    Raises:
        ConfigError: all of them.
    """
    names = ("steps", "save_every_steps", "log_every_steps")
    problems = [
        f"train.{name} is {config.train[name]}: must be a multiple of "
        f"npu.iterations_per_loop = {steps_per_call}, since hooks are called between "
        "loops only"
        for name in names
        if config.train[name] % steps_per_call
    ]
    if problems:
        raise ConfigError(problems, "configuration")


def open_data(config: Config, model_dir: str) -> Dataset:
    """Open converted data, or convert raw pictures beside ``model_dir`` first."""
    if config.data.synthetic:
        return inputs.synthetic_dataset(config.data)
    cache = os.path.abspath(model_dir).rstrip(os.sep) + ".data"
    return records.open_dataset(
        config.data.path,
        cache,
        config.convert,
        config.data.label_offset,
        config.data.max_bad_records,
    )


def make_model_dir(run: Run) -> None:
    """Make the folder of the run where it is missing.

    Raises:
        ConfigError: that is not possible.
    """
    try:
        os.makedirs(run.model_dir, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", run.model_dir) from error


def record_run(run: Run) -> List[str]:
    """Write ``config.json``: configuration, versions and data of this run.

    Returns:
        The fields that have changed since the run was last started, with both values.

    Raises:
        ConfigError: see ``fitting_record``.
    """
    record: Dict[str, Any] = {
        "config": _as_stored(run.config),
        "class_names": run.dataset.class_names,
        "class_counts": {
            name: list(split.class_counts) for name, split in run.dataset.splits.items()
        },
        "data_digest": run.dataset.digest,
        "conversion": run.dataset.conversion,
        "num_ranks": run.runtime.num_ranks,
        "device": run.runtime.device,
        "network": find_network(run.config.model.network).describe(),
        "versions": versions(),
    }
    stored = fitting_record(run, is_training=True)
    changes = _changed_fields(stored["config"], record["config"]) if stored else []
    path = os.path.join(run.model_dir, RECORD_FILE)
    write_bytes(path, encode_json(record, indent=2))
    return changes


def _changed_fields(old: dict, new: dict) -> List[str]:
    """Return ``section.field: before -> now`` for what changes the training itself."""
    changes = []
    for section in ("data", "model", "optim", "warm_start", "precision", "train"):
        for name, value in new[section].items():
            before = old[section].get(name)
            if before != value:
                changes.append(f"{section}.{name}: {before} -> {value}")
    return changes


def fitting_record(run: Run, is_training: bool) -> Dict[str, Any]:
    """Return the ``config.json`` of ``model_dir``; empty in a new folder.

    Args:
        run: what is wanted.
        is_training: the optimizer's variables have to fit as well as the weights.

    Raises:
        ConfigError: the run there is of another model or has other classes.
    """
    file = pathlib.Path(run.model_dir, RECORD_FILE)
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        record["config"] = _with_defaults(record["config"], run.config)
        problems = _find_misfits(record, run.config, is_training)
        names = list(record["class_names"])
    except (
        AttributeError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise ConfigError(
            f"damaged ({error!r}): restore it, or use another --model_dir", str(file)
        ) from error
    if names != list(run.dataset.class_names):
        problems.append(
            f"classes are {_shorten(run.dataset.class_names)}, in the stored run "
            f"{_shorten(names)}"
        )
    if problems:
        raise ConfigError(
            problems,
            f"the run in {run.model_dir} is another one (use its values, or another "
            "--model_dir)",
        )
    return record


def _as_stored(config: Config) -> Dict[str, Any]:
    """Return a configuration as it is read back from ``config.json``."""
    return json.loads(json.dumps(config.to_dict()))


def _with_defaults(stored: Dict[str, Any], config: Config) -> Dict[str, Any]:
    """Return a stored configuration with the fields that its version did not have."""
    defaults = _as_stored(default_config(config.model.network))
    return {name: {**defaults[name], **stored.get(name, {})} for name in defaults}


def _find_misfits(
    record: Dict[str, Any], config: Config, is_training: bool
) -> List[str]:
    """Return the fields by which variables differ in number or shape."""
    old, new = record["config"], _as_stored(config)
    network = find_network(config.model.network)
    # Runs of the first versions do not name their network.
    old_name = record.get("network", {}).get("name", DEFAULT)
    if old_name != network.name:
        return [f"the network is {network.name}, in the stored run {old_name}"]
    names = [("data", "image_size")]
    names += [("model", name) for name, f in network.settings.items() if f.is_fixed]
    if is_training:
        names += [("optim", "optimizer"), ("warm_start", "path")]
        names += [("warm_start", "frozen_until")]
    if new["optim"]["ema_decay"] > 0 and old["optim"]["ema_decay"] == 0:
        names.append(("optim", "ema_decay"))
    return [
        f"{section}.{name} is {new[section][name]!r}, in the stored run "
        f"{old[section][name]!r}"
        for section, name in names
        if new[section][name] != old[section][name]
    ]


def _shorten(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def versions() -> Dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "alexnet_estimator": alexnet_estimator.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
    }


def code_digest() -> str:
    """Return SHA-256 (hex) over the package's source files."""
    folder = pathlib.Path(alexnet_estimator.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def explain_full_disk(model_dir: str) -> Iterator[None]:
    """Name the file that does not fit on the disk, and the room that is left.

    Raises:
        DataError: in place of an OSError, or an error of TensorFlow, that says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename == STDOUT_NAME:
            raise
        raise _no_room(error.filename, error.strerror, model_dir) from error
    except RuntimeError as error:
        # Of TF 2.15, whose Estimator does not end an evaluation without its events.
        file, _, reason = str(error).partition("; ")
        if not reason.startswith(tuple(map(os.strerror, _NO_ROOM))):
            raise
        raise _no_room(file, reason.splitlines()[0], model_dir) from error


def _no_room(file: Optional[str], reason: str, model_dir: str) -> DataError:
    free_mib = shutil.disk_usage(model_dir).free >> 20
    return DataError(
        f"cannot write {file or 'a file'} ({free_mib} MiB free): {reason}; make room "
        "and run the same command again",
        model_dir,
    )


@contextlib.contextmanager
def explain_data_errors(run: Run) -> Iterator[None]:
    """Name file and record where TensorFlow only says that some record is bad.

    Raises:
        DataError: in place of TensorFlow's error, if a record is damaged.
        RankError: another rank has ended.
    """
    try:
        with run.runtime.noticing_lost_ranks():
            yield
    except _RECORD_ERRORS as error:
        if run.config.data.synthetic:
            raise
        # A damaged checksum shows without decoding, which takes much longer.
        decode = isinstance(error, tf.errors.InvalidArgumentError)
        checks = check_shards(run.dataset, _shards_of_rank(run), decode)
        damages = [str(damage) for check in checks for damage in check.damages]
        if not damages:
            raise
        advice = (
            "copy the data again, convert it again, or leave out up to N records with "
            "--config.data.max_bad_records=N"
        )
        raise DataError(damages, run.dataset.directory, advice) from error


def _shards_of_rank(run: Run) -> List[Shard]:
    """Return the files of all splits that this rank reads."""
    rank, num_ranks = run.runtime.rank, run.runtime.num_ranks
    shards: List[Shard] = []
    for split in run.dataset.splits.values():
        sizes = [(shard.file, shard.num_images) for shard in split.shards]
        read = {part.path for part in inputs.slices_of_rank(sizes, rank, num_ranks)}
        shards += [shard for shard in split.shards if shard.file in read]
    return shards
