"""The configuration: made from ``schema``, files and the command line, and checked.

``default_config()`` returns a locked ``ml_collections.ConfigDict``; the files in
``configs/`` change a few fields of it, ``apply_overrides`` applies the command line's
``--config.section.field=value``, and ``validate`` refuses what cannot work, all
problems in one message, before anything expensive starts.

The section ``model`` consists of ``network`` and of the settings of that network.
Choosing another network replaces the section by the defaults of that one.

No TensorFlow is imported here.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
import pathlib
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ml_collections import ConfigDict as Config

from alexnet_estimator import engine
from alexnet_estimator.errors import ConfigError
from alexnet_estimator.networks import DEFAULT, Network, find_network
from alexnet_estimator.schema import (
    ACCELERATORS,
    MAX_NUMBER,
    PATH,
    PRECISION_ALIASES,
    SCHEMA,
    Field,
    one_of,
)

# What a run records: its configuration, among other things; see load_resolved.
RECORD_FILE = "config.json"


def fields_of(network: Network) -> Dict[str, Dict[str, Field]]:
    """Return the fields of a configuration with this network, by section and name."""
    frozen_until = dataclasses.replace(
        SCHEMA["warm_start"]["frozen_until"],
        rule=one_of("", *network.layer_names[:-1]),
    )
    return {
        **SCHEMA,
        "model": {**SCHEMA["model"], **network.settings},
        "warm_start": {**SCHEMA["warm_start"], "frozen_until": frozen_until},
    }


def default_config(network: str = DEFAULT) -> Config:
    """Return the default configuration, locked: fields can change, not appear.

    Args:
        network: Name of the network, see ``networks.find_network``.

    Raises:
        ConfigError: There is no such network.
    """
    chosen = find_network(network)
    sections = {
        section: {name: field.default for name, field in fields.items()}
        for section, fields in fields_of(chosen).items()
    }
    sections["model"]["network"] = chosen.source
    return Config(sections).lock()


def config_from(changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the default configuration with some fields changed.

    Args:
        changes: ``{section: {field: value}}``.

    Raises:
        ConfigError: unknown names or wrong types, all of them.
    """
    config, problems = default_config(), []
    pairs = []
    for section, fields in changes.items():
        if not isinstance(fields, Mapping):
            problems.append(f"{section} is {fields!r}; it must be a group of fields")
            continue
        pairs += [(f"{section}.{name}", value) for name, value in fields.items()]
    for name, value in sorted(pairs, key=_is_setting):
        problems.extend(_assign(config, name, value))
    if problems:
        raise ConfigError(problems, "configuration")
    return config


def _is_setting(pair: Tuple[str, Any]) -> bool:
    """Sort the choice of the network before its settings."""
    return pair[0] != "model.network"


def load_config_file(path: str, network: str = "") -> Config:
    """Run a configuration file and return what its ``get_config()`` returns.

    A configuration file is Python code and runs with your rights: read files from
    elsewhere before you use them.  A ``.json`` file (a run's ``config.json``) is only
    read.  The ready-made ones, ``configs/X.py``, are found from any folder.

    Args:
        path: Path of the file.
        network: Network in place of the one that a run has recorded, whose file may
            have moved; empty: the recorded one.

    Raises:
        ConfigError: no such file, no ``get_config``, or not made by this schema.
    """
    file, ready_made = pathlib.Path(path), ready_made_folder()
    if not file.exists() and file.parent == pathlib.Path("configs"):
        file = ready_made / file.name
    if not file.is_file():
        names = [f"configs/{found.name}" for found in sorted(ready_made.glob("*.py"))]
        raise ConfigError(f"{path} is not a file; there are {', '.join(names)}")
    if file.suffix == ".json":
        return load_resolved(path, network)
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", str(file))
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is neither a .py nor a .json file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except ConfigError:
        raise
    except Exception as error:  # The file is the user's code: any error may come.
        raise ConfigError(f"{type(error).__name__}: {error}", path) from error
    if not isinstance(config, Config) or set(config) != set(SCHEMA):
        raise ConfigError(
            "get_config() must return alexnet_estimator.config.default_config() "
            "with fields changed",
            path,
        )
    return config


def ready_made_folder() -> pathlib.Path:
    """Return ``configs/``: in an installed package, or in a clone beside it."""
    package = pathlib.Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load_resolved(path: str, network: str = "") -> Config:
    """Read the ``config.json`` that a run recorded; see ``load_config_file``.

    Raises:
        ConfigError: not JSON, too large, or fields that this version does not know.
    """
    file = pathlib.Path(path)
    if file.stat().st_size > 1 << 20:
        raise ConfigError("larger than 1 MiB: not a configuration", path)
    try:
        record = _tuples_for_lists(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # Recursion: "[[[[[..."
        raise ConfigError(f"not JSON: {error}", path) from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise ConfigError('no {"config": {...}} in it', path)
    config = record["config"]
    if network:
        described = record.get("network")
        name = described.get("name") if isinstance(described, dict) else DEFAULT
        model = config.get("model")
        # Another network does not have the settings of the recorded one.
        is_same = isinstance(model, dict) and find_network(network).name == name
        config["model"] = {**(model if is_same else {}), "network": network}
    return config_from(config)


def apply_overrides(config: Config, overrides: Iterable[Tuple[str, str]]) -> None:
    """Change fields as the command line says.

    Args:
        config: changed in place.
        overrides: pairs such as ``("optim.momentum", "0.95")``.

    Raises:
        ConfigError: unknown names and values of the wrong type, all of them.
    """
    problems: List[str] = []
    for name, text in sorted(overrides, key=_is_setting):
        problems.extend(_assign_text(config, name, text))
    if problems:
        raise ConfigError(problems, "command line")


def validate(config: Config, verb: str = "") -> None:
    """Refuse values and combinations that cannot work, before any graph is built.

    Also replaces the aliases of ``precision.mode`` by the vendor's names.

    Args:
        config: changed in place.
        verb: what it is for: ``train`` and ``benchmark`` need more than others do.

    Raises:
        ConfigError: all problems, each with the value seen and the rule.
    """
    network = find_network(config.model.network)
    fields = fields_of(network)
    if set(config.model) != set(fields["model"]):
        raise ConfigError(
            f"the section model has the fields of another network than {network.name}: "
            f'choose it with config_from({{"model": {{"network": ...}}}})'
        )
    problems = [
        f"{section}.{name} is {config[section][name]!r}: must be {field.rule.text}"
        for section, members in fields.items()
        for name, field in members.items()
        if not field.rule.accepts(config[section][name])
    ]
    if not problems:
        problems.extend(network.check(config.model, config.data.image_size))
    problems.extend(_bad_combinations(config))
    if verb == "train":
        problems.extend(_lacking_source(config))
    if verb in ("train", "benchmark"):
        device = config.runtime.device
        adapter = ACCELERATORS[device].adapter if device in ACCELERATORS else ""
        problems.extend(engine.lacking(device, adapter, config.optim.optimizer))
    if problems:
        raise ConfigError(problems, "configuration")
    mode = config.precision.mode
    config.precision.mode = PRECISION_ALIASES.get(mode, mode)


def to_json(config: Config) -> str:
    """Return the configuration as canonical JSON text (sorted, one form)."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def path_fields(config: Config) -> List[Tuple[str, str]]:
    """Return the names and the values of the fields that are paths."""
    return [
        (f"{section}.{name}", config[section][name])
        for section, fields in SCHEMA.items()
        for name, field in fields.items()
        if field.rule.text == PATH.text
    ]


def describe_fields(
    sections: Iterable[str] = tuple(SCHEMA), network: str = DEFAULT
) -> str:
    """Return two lines for each field: its default, its meaning, and what it may be.

    Args:
        sections: Sections whose fields are described.
        network: Name of the network, see ``networks.find_network``.
    """
    fields = fields_of(find_network(network))
    return "\n".join(
        f"  --config.{section}.{name}={field.default}\n"
        f"      {field.doc} ({field.describe_values()})"
        for section in sections
        for name, field in fields[section].items()
    )


def _bad_combinations(config: Config) -> List[str]:
    """Check fields against each other; each message shows both values."""
    data, optim, train = config.data, config.optim, config.train
    problems = []
    if data.synthetic and data.path:
        problems.append(
            f"data.synthetic is True and data.path is {data.path!r}: choose one"
        )
    if train.steps == 0 and train.epochs == 0:
        problems.append("train.steps and train.epochs are both 0: nothing to train")
    if optim.schedule == "step" and not optim.decay_epochs:
        problems.append("optim.schedule is 'step' but optim.decay_epochs is ()")
    if optim.schedule == "plateau" and train.eval_every_epochs == 0:
        problems.append(
            "optim.schedule is 'plateau' but train.eval_every_epochs is 0: "
            "a plateau is seen in evaluations"
        )
    if optim.end_learning_rate > optim.learning_rate:
        problems.append(
            f"optim.end_learning_rate is {optim.end_learning_rate}, above "
            f"optim.learning_rate = {optim.learning_rate}"
        )
    if optim.use_nesterov and optim.optimizer != "momentum":
        problems.append(
            f"optim.use_nesterov is True but optim.optimizer is {optim.optimizer!r}: "
            "only momentum has it"
        )
    names = ("min_loss_scale", "initial_loss_scale", "max_loss_scale")
    scales = [config.precision[name] for name in names]
    if scales != sorted(scales):
        problems.append(f"precision.{', '.join(names)} are {scales}: must not fall")
    return problems


def _lacking_source(config: Config) -> List[str]:
    """Return what is wanted of layers that are taken over from nowhere."""
    if config.warm_start.path:
        return []
    return [
        f"warm_start.{name} is {value!r} but warm_start.path is '': give "
        "--warm_start_from"
        for name, value in config.warm_start.items()
        if value != SCHEMA["warm_start"][name].default
    ]


def _assign_text(config: Config, name: str, text: str) -> List[str]:
    """Parse ``text`` by the type of the field and assign it; return problems."""
    field = _find_field(config, name)
    if field is None:
        return [_unknown_field(config, name)]
    try:
        value = _parse(text, type(field.default))
    except (ValueError, SyntaxError):
        kind = type(field.default).__name__
        return [f"{name}={text}: not of type {kind}; the default is {field.default!r}"]
    return _assign(config, name, value)


def _assign(config: Config, name: str, value: Any) -> List[str]:
    field = _find_field(config, name)
    if field is None:
        return [_unknown_field(config, name)]
    expected = type(field.default)
    if expected is float and type(value) is int and abs(value) < MAX_NUMBER:
        value = float(value)
    if type(value) is not expected:
        return [f"{name} is {value!r}: must be of type {expected.__name__}"]
    if name == "model.network":
        _choose_network(config, value)
        return []
    section, _, field_name = name.partition(".")
    config[section][field_name] = value
    return []


def _choose_network(config: Config, name: str) -> None:
    """Put the defaults of another network into the section ``model``."""
    network = find_network(name)
    if network.source != config.model.network:
        with config.unlocked():
            config.model = default_config(network.source).model


def _find_field(config: Config, name: str) -> Optional[Field]:
    section, _, field_name = name.partition(".")
    fields = fields_of(find_network(config.model.network))
    return fields.get(section, {}).get(field_name)


def _unknown_field(config: Config, name: str) -> str:
    network = find_network(config.model.network)
    fields = fields_of(network)
    known = [f"{section}.{field}" for section in fields for field in fields[section]]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "see --helpfull for all fields"
    return f"no field {name}; {hint}"


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("true", "1", "yes"):
            return True
        if text.lower() in ("false", "0", "no"):
            return False
        raise ValueError(text)
    if kind is tuple:
        value = ast.literal_eval(text)
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return kind(text)


def _tuples_for_lists(value: Any) -> Any:
    """JSON has lists only; the schema's sequences are tuples."""
    if isinstance(value, dict):
        return {key: _tuples_for_lists(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
