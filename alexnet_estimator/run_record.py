"""The run record, ``config.json``: configuration, classes and versions of a run.

Only this module reads and writes the file.  It does not import TensorFlow.
"""

import dataclasses
import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from alexnet_estimator import disk, files
from alexnet_estimator.config import Config, config_from, find_breaches, resolve
from alexnet_estimator.console import count, list_some, warn
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import DEFAULT, find_network, is_file_name
from alexnet_estimator.rules import Rule, is_count
from alexnet_estimator.schema import SCHEMA

FILE_NAME = "config.json"
# This is enough for 250,000 classes with the longest names that file systems allow.
MAX_BYTES = 64 << 20
# Options of the conversion that choose the held-out pictures.  Conversions without
# folds, and those of the first versions, do not record all of them.
_SPLIT_OPTIONS = ("eval_fraction", "eval_images", "split_seed", "num_folds", "fold")
# Options of the conversion that change the records of the same pictures.
_ENCODING_OPTIONS = ("short_side", "jpeg_quality", "images_per_shard")


def _are(values: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(map(accepts, values))


def _are_objects(values: Any) -> bool:
    is_object = isinstance(values, dict)
    return is_object and _are(list(values.values()), lambda v: isinstance(v, dict))


def _are_counts(values: Any) -> bool:
    is_object = isinstance(values, dict)
    return is_object and _are(list(values.values()), lambda v: _are(v, is_count))


_RULES = {
    "config": Rule("an object whose values are objects", _are_objects),
    "class_names": Rule("a list of names", lambda v: _are(v, lambda x: type(x) is str)),
    "class_counts": Rule("an object with lists of whole numbers", _are_counts),
    "data_digest": Rule("a string", lambda v: isinstance(v, str)),
    "conversion": Rule("an object", lambda v: isinstance(v, dict)),
    "num_ranks": Rule("a whole number, 0 or more", is_count),
    "device": Rule("a string", lambda v: isinstance(v, str)),
    "network": Rule(
        "an object whose settings are objects",
        lambda v: isinstance(v, dict) and _are_objects(v.get("settings", {})),
    ),
    "versions": Rule("an object", lambda v: isinstance(v, dict)),
    "global_step": Rule("a whole number, 0 or more", is_count),
}
_FIELDS = tuple(name for name in _RULES if name != "config")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The description of a run, or of a model that was exported from it.

    Attributes:
        config: Resolved, frozen configuration.  Fields that are newer than the run have
            their defaults.
        class_names: Names of the classes in the order of the logits; empty in a file
            that holds only a configuration.
        class_counts: Number of images of each class, by split.
        data_digest: SHA-256 (hex) that changes with the data.
        conversion: Options of the conversion of the pictures.
        num_ranks: Number of ranks of the last start; 0 if it is unknown.
        device: Name of the accelerator of the last start.
        network: Description of the network for readers without its file, see
            ``Network.describe``; empty in runs of the first versions, which had AlexNet
            only.
        versions: Versions of the packages that a result depends on.
        global_step: Global step of an exported model; None for a run.
    """

    config: Config
    class_names: Tuple[str, ...] = ()
    class_counts: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    data_digest: str = ""
    conversion: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_ranks: int = 0
    device: str = ""
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    global_step: Optional[int] = None


def path_of(model_dir: str) -> str:
    """Return the path of the run record in the folder of a run."""
    return os.path.join(model_dir, FILE_NAME)


def read(path: str, network: str = "", is_run: bool = True) -> RunRecord:
    """Read a run record.

    Args:
        path: Path of the file.
        network: Network that replaces the recorded one, whose file may have moved;
            empty for the recorded network.
        is_run: Whether the file must be the record of a run, which has the names of the
            classes; otherwise a configuration is enough.

    Raises:
        ConfigError: The file is missing or damaged, or the configuration has fields
            that this version does not know.
    """
    values = read_values(path)
    config = values["config"]
    settings = config.get("model", {})
    recorded = str(settings.get("network", DEFAULT))
    if not network and is_file_name(recorded) and not os.path.isabs(recorded):
        # Runs record absolute paths.  A relative path could execute code in a folder
        # that was downloaded together with this file.
        raise _damaged(path, f"model.network is the relative path {recorded}")
    chosen = find_network(network or recorded)
    if network:
        name = values["network"].get("name") if "network" in values else DEFAULT
        # Another network does not have the recorded settings.
        kept = settings if chosen.name == name else {}
        config = {**config, "model": {**kept, "network": network}}
    fields = {name: values[name] for name in _FIELDS if name in values}
    fields["class_names"] = tuple(values.get("class_names", ()))
    # The first version did not record the conversion, so its options are used.
    fields.setdefault("conversion", config.get("convert", {}))
    try:
        record = RunRecord(resolve(config_from(config)), **fields)
    except ConfigError as error:
        raise ConfigError(error.problems, path) from error
    if is_run and not record.class_names:
        raise _damaged(path, "it has no class_names")
    return record


def write(path: str, record: RunRecord) -> None:
    """Write a run record atomically.

    Raises:
        ConfigError: The record would be too large to be read again.
        OSError: The file cannot be written.
    """
    values = {name: getattr(record, name) for name in _FIELDS if getattr(record, name)}
    content = files.encode_json({"config": record.config.to_dict(), **values}, indent=2)
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{len(record.class_names)} names of classes need {len(content) >> 20} "
            f"MiB, but the limit is {MAX_BYTES >> 20} MiB: shorten the names",
            path,
        )
    files.write_bytes(path, content)


def find_changes(old: RunRecord, new: RunRecord) -> List[str]:
    """Return ``section.field: old -> new`` for changes that affect the training."""
    changes = [
        f"{section}.{name}: {old.config[section][name]} -> {value}"
        for section in new.config
        # Changed options of the conversion need another folder of data.
        if section not in ("convert", "runtime")
        for name, value in new.config[section].items()
        # The machine may choose the loop, which changes no result.
        if old.config[section][name] != value and name != "iterations_per_loop"
    ]
    if _has_other_data(old, new):
        numbers = [
            ", ".join(map(_describe_split, r.class_counts.items())) for r in (old, new)
        ]
        changes.append(f"data: {numbers[0]} -> {numbers[1]}")
    return changes


def _describe_split(split: Tuple[str, Sequence[int]]) -> str:
    name, class_counts = split
    return f"{name} {count(sum(class_counts), 'image')}"


def _has_other_data(old: RunRecord, new: RunRecord) -> bool:
    """Return whether two records are known to have other data."""
    is_known = bool(old.data_digest and new.data_digest)
    return is_known and old.data_digest != new.data_digest


def check_split(model_dir: str, old: RunRecord, new: RunRecord) -> None:
    """Check that a job holds out the pictures that the run has not trained on.

    If pictures were added to the source or removed from it, this is a warning, because
    training goes on with them.  Other options of the encoding hold out the same
    pictures.

    Args:
        model_dir: Folder of the run.
        old: Record of the run.
        new: Record of the job.

    Raises:
        ConfigError: The options choose other pictures of the same source.
    """
    has_same_source = old.config.data.path == new.config.data.path
    if not has_same_source or not _has_other_data(old, new):
        return
    defaults = {name: SCHEMA["convert"][name].default for name in _SPLIT_OPTIONS}
    before, now = ({**defaults, **record.conversion} for record in (old, new))
    problems = [
        f"convert.{name} is {now[name]}, but {before[name]} in the stored run: "
        "pictures that the run has trained on would be held out"
        for name in _SPLIT_OPTIONS
        if now[name] != before[name]
    ]
    if problems:
        raise ConfigError(problems, _misfit(model_dir))
    if all(before.get(name) == now.get(name) for name in _ENCODING_OPTIONS):
        warn(
            f"{new.config.data.path} has changed since the run was last started: "
            "pictures that are held out now may have been trained on, so the accuracy "
            "may be too high"
        )


def check_fit(
    model_dir: str, config: Config, class_names: Sequence[str], is_training: bool
) -> Optional[RunRecord]:
    """Check that a job has the same variables as the run in ``model_dir``.

    Args:
        model_dir: Folder of the run.
        config: Resolved configuration of the job.
        class_names: Names of the classes of the job's data.
        is_training: Whether the variables of the optimizer are compared as well.

    Returns:
        The record of the run, or None in a new folder.

    Raises:
        ConfigError: The variables differ, or the run record is damaged.
    """
    path = path_of(model_dir)
    if not os.path.exists(path):
        return None
    network = find_network(config.model.network)
    stored = read(path, config.model.network)
    name = stored.network.get("name", DEFAULT)  # The first versions had AlexNet only.
    if name != network.name:
        problems = [f"the network is {network.name}, but {name} in the stored run"]
    else:
        problems = _find_misfits(stored.config, config, is_training)
    if list(stored.class_names) != list(class_names):
        problems.append(
            f"the classes are {list_some(class_names, 5)}, but "
            f"{list_some(stored.class_names, 5)} in the stored run"
        )
    if problems:
        raise ConfigError(problems, _misfit(model_dir))
    if stored.network.get("sha256", "") not in ("", network.sha256):
        warn(f"{network.source} has changed since the run was last started")
    return stored


def read_values(path: str) -> Dict[str, Any]:
    """Return the JSON object of a run record, whose values have the right types.

    The report and others that need only a few values call it, because it also works
    when the file of the network is missing.  Fields of the configuration may be unknown
    or missing.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    try:
        # Versions up to 1.0 wrote names that are not UTF-8 without escapes.
        values = files.read_json(path, MAX_BYTES)
    except OSError as error:
        raise disk.error_at(path, "cannot be read", error) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise _damaged(path, 'it has no {"config": {...}}')
    rules = {name: rule for name, rule in _RULES.items() if name in values}
    problems = find_breaches(values, rules)
    if problems:
        raise ConfigError([f"damaged: {problem}" for problem in problems], path)
    return values


def _misfit(model_dir: str) -> str:
    return (
        f"this job does not fit the run in {model_dir} (use the values of the run, or "
        "another --model_dir)"
    )


def _damaged(path: str, problem: str) -> ConfigError:
    advice = "restore it, or use another --model_dir"
    return ConfigError(f"damaged ({problem}): {advice}", path)


def _find_misfits(old: Config, new: Config, is_training: bool) -> List[str]:
    """Return a message for each changed field on which the variables depend."""
    settings = find_network(new.model.network).settings
    names = [("data", "image_size")]
    names += [("model", name) for name, field in settings.items() if field.is_fixed]
    if is_training:
        names += [("optim", "optimizer"), ("warm_start", "path")]
        names += [("warm_start", "frozen_until")]
    if new.optim.ema_decay > 0 and old.optim.ema_decay == 0:
        names.append(("optim", "ema_decay"))
    return [
        f"{section}.{name} is {new[section][name]!r}, but {old[section][name]!r} in "
        "the stored run"
        for section, name in names
        if new[section][name] != old[section][name]
    ]
