"""The run record, ``config.json``: what a run was trained with, and on what.

This module is the only one that reads and writes the file.  No TensorFlow is imported
here.
"""

import dataclasses
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from alexnet_estimator import files
from alexnet_estimator.config import Config, config_from, resolve
from alexnet_estimator.console import list_some, warn
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import DEFAULT, find_network, is_file_name

FILE_NAME = "config.json"
# Room for 250,000 classes with the longest names that file systems have.
MAX_BYTES = 64 << 20
_TYPES = {
    "class_names": list,
    "class_counts": dict,
    "data_digest": str,
    "conversion": dict,
    "num_ranks": int,
    "device": str,
    "network": dict,
    "versions": dict,
    "global_step": int,
}


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run, or a model that was exported from it, says about itself.

    Attributes:
        config: Resolved, frozen configuration; fields that the version of the run did
            not know have their defaults.
        class_names: Names of the classes in the order of the logits; empty in a file
            that holds a configuration only.
        class_counts: Numbers of images by split, one for each class.
        data_digest: SHA-256 (hex) that changes with the data.
        conversion: Options with which the pictures were converted.
        num_ranks: Number of ranks of the last start; 0: not known.
        device: Name of the accelerator of the last start.
        network: Description of the network for readers without its file, see
            ``Network.describe``; empty in runs of the first versions, which had no
            choice.
        versions: Versions of what a result depends on.
        global_step: Step of the checkpoint that a model was exported from; None: a run.
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
        network: Network in place of the recorded one, whose file may have moved; empty:
            the recorded one.
        is_run: Whether it must name classes, as every run does; otherwise a
            configuration is enough.

    Raises:
        ConfigError: The file is missing or damaged, or has fields of the configuration
            that this version does not know.
    """
    values = read_values(path)
    config = values["config"]
    model = config.get("model")
    settings = dict(model) if isinstance(model, dict) else {}
    recorded = str(settings.get("network", DEFAULT))
    if not network and is_file_name(recorded) and not os.path.isabs(recorded):
        # Runs record absolute paths.  A relative one could lead to code in a folder
        # that came from elsewhere, together with this file.
        raise _damaged(path, f"model.network is the relative path {recorded}")
    chosen = find_network(network or recorded)
    if network:
        about = values.get("network")
        name = about.get("name") if isinstance(about, dict) else DEFAULT
        # Another network does not have the settings of the recorded one.
        kept = settings if chosen.name == name else {}
        config = {**config, "model": {**kept, "network": network}}
    try:
        record = RunRecord(resolve(config_from(config)), **_checked(values))
    except ConfigError as error:
        raise ConfigError(error.problems, path) from error
    if is_run and not record.class_names:
        raise _damaged(path, "it has no class_names")
    return record


def write(path: str, record: RunRecord) -> None:
    """Write a run record, whole or not at all.

    Raises:
        ConfigError: It would be too large to be read again.
        OSError: It cannot be written.
    """
    values = {name: getattr(record, name) for name in _TYPES if getattr(record, name)}
    content = files.encode_json({"config": record.config.to_dict(), **values}, indent=2)
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{len(record.class_names)} names of classes need {len(content) >> 20} "
            f"MiB, and more than {MAX_BYTES >> 20} MiB are not read: shorten the names",
            path,
        )
    files.write_bytes(path, content)


def find_changes(old: RunRecord, new: RunRecord) -> List[str]:
    """Return ``section.field: before -> now`` for what changes the training itself."""
    return [
        f"{section}.{name}: {old.config[section][name]} -> {value}"
        for section in ("data", "model", "optim", "warm_start", "precision", "train")
        for name, value in new.config[section].items()
        if old.config[section][name] != value
    ]


def check_fit(
    model_dir: str, config: Config, class_names: Sequence[str], is_training: bool
) -> Optional[RunRecord]:
    """Refuse a job whose variables would not be those of the run in ``model_dir``.

    A new folder fits everything; otherwise the run record there is returned.

    Args:
        model_dir: Folder of the run.
        config: Resolved configuration of the job.
        class_names: Names of the classes of its data.
        is_training: Whether the optimizer's variables have to fit as well.

    Raises:
        ConfigError: The run there is another one, or its record is damaged.
    """
    path = path_of(model_dir)
    if not os.path.exists(path):
        return None
    network = find_network(config.model.network)
    stored = read(path, config.model.network)
    name = stored.network.get("name", DEFAULT)  # The first versions had no choice.
    if name != network.name:
        problems = [f"the network is {network.name}, in the stored run {name}"]
    else:
        problems = _find_misfits(stored.config, config, is_training)
    if list(stored.class_names) != list(class_names):
        problems.append(
            f"classes are {list_some(class_names, 5)}, in the stored "
            f"run {list_some(stored.class_names, 5)}"
        )
    if problems:
        raise ConfigError(
            problems,
            f"the run in {model_dir} is another one (use its values, or another "
            "--model_dir)",
        )
    if stored.network.get("sha256", "") not in ("", network.sha256):
        warn(f"{network.source} has changed since the run was last started")
    return stored


def read_values(path: str) -> Dict[str, Any]:
    """Return the JSON object of a run record with a section ``config``, unchecked.

    For those who need a few values of a run whose network is not there any more.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    try:
        content = files.read_at_most(path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    try:
        # Versions up to 1.0 wrote names that are not Unicode as they are.
        values = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:  # Recursion: "[[[[[..."
        raise _damaged(path, f"not JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise _damaged(path, 'no {"config": {...}} in it')
    return values


def _checked(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the fields of a record besides its configuration.

    Raises:
        ConfigError: They are of other types, all of them.
    """
    fields = {name: values[name] for name in _TYPES if name in values}
    problems = [
        f"damaged: {name} is {value!r:.60}, not of type {_TYPES[name].__name__}"
        for name, value in fields.items()
        if not isinstance(value, _TYPES[name])
    ]
    names = fields.pop("class_names", [])
    if not problems and not all(isinstance(name, str) for name in names):
        problems.append("damaged: class_names holds something else than names")
    if problems:
        raise ConfigError(problems)
    # Runs of the first version do not have it; their options are the only clue.
    fields.setdefault("conversion", values["config"].get("convert", {}))
    return {**fields, "class_names": tuple(names)}


def _damaged(path: str, problem: str) -> ConfigError:
    advice = "restore it, or use another --model_dir"
    return ConfigError(f"damaged ({problem}): {advice}", path)


def _find_misfits(old: Config, new: Config, is_training: bool) -> List[str]:
    """Return the fields by which variables differ in number or shape."""
    settings = find_network(new.model.network).settings
    names = [("data", "image_size")]
    names += [("model", name) for name, field in settings.items() if field.is_fixed]
    if is_training:
        names += [("optim", "optimizer"), ("warm_start", "path")]
        names += [("warm_start", "frozen_until")]
    if new.optim.ema_decay > 0 and old.optim.ema_decay == 0:
        names.append(("optim", "ema_decay"))
    return [
        f"{section}.{name} is {new[section][name]!r}, in the stored run "
        f"{old[section][name]!r}"
        for section, name in names
        if new[section][name] != old[section][name]
    ]
