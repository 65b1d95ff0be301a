"""The command line: flags and a verb -> configuration -> one function; exit codes.

Thin on purpose: what the verbs do is in ``jobs``, ``records``, ``rank_table`` and
``launch``.  TensorFlow is imported by the verbs that need it, so that ``--help`` and
mistakes answer at once.
"""

import dataclasses
import logging
import os
import pathlib
import sys
import warnings
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from absl import flags

from alexnet_estimator import config as config_lib
from alexnet_estimator.config import Config
from alexnet_estimator.errors import EXIT_DATA, EXIT_DONE, ConfigError, UserError

if TYPE_CHECKING:
    from alexnet_estimator.rank_table import Topology

# As long as HCCL itself waits for a table that the cluster's controller still fills.
TABLE_WAIT_SECS = 1800


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag: what it means, and the configuration field that it sets, if any."""

    doc: str
    field: str = ""
    alias: str = ""
    is_switch: bool = False


# The only table of flags.  Flags with a field are parsed and checked like the field.
FLAG_TABLE: Dict[str, Flag] = {
    "model_dir": Flag("folder of the run; default runs/<name of the config>"),
    "data_path": Flag(
        "converted data, a folder of pictures, or a zip; default: the sample data",
        field="data.path",
        alias="data_dir",
    ),
    "config": Flag("a file of configs/ or a run's config.json; it is Python code"),
    "train_steps": Flag("global steps in all, restarts included", "train.steps"),
    "epoch": Flag("the same in epochs, e.g. 35", "train.epochs", alias="epochs"),
    "batch_size": Flag("images in a step of one rank", "train.batch_size_per_rank"),
    "learning_rate": Flag("peak learning rate", "optim.learning_rate"),
    "device": Flag("auto, cpu, gpu or npu", "runtime.device"),
    "precision_mode": Flag("mixed, float32 or the vendor's names", "precision.mode"),
    "loss_scale": Flag("auto, dynamic, none or a number", "precision.loss_scale"),
    "seed": Flag("of weights, shuffling, augmentation, dropout", "train.seed"),
    "rank_table": Flag("JSON file that names servers, devices and ranks"),
    "server_id": Flag("this server in the rank table; default: by its own addresses"),
    "rendezvous_port": Flag("Horovod on several servers: free on the first; 29400"),
    "dry_run": Flag("check and show what would be done, and stop", is_switch=True),
    "servers": Flag("rank_table make: addresses, e.g. 10.0.0.1,10.0.0.2"),
    "devices": Flag("rank_table make: on each server, 1, 2, 4 or 8"),
    "checkpoint": Flag("evaluate: path prefix; default: the newest of model_dir"),
    "output": Flag("convert: folder; rank_table make: file"),
}
TRAIN_FLAGS = (
    "model_dir data_path config train_steps epoch batch_size learning_rate device "
    "precision_mode loss_scale seed rank_table server_id rendezvous_port dry_run"
).split()


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        words: all of it, the verb first.
        arguments: of the words after the verb, those that are no flags.
        flags: of ``FLAG_TABLE``; None where not given.
        overrides: fields of the configuration and their values, as text.
    """

    words: Sequence[str]
    arguments: Sequence[str]
    flags: flags.FlagValues
    overrides: Sequence[Tuple[str, str]]


def train(command: Command) -> int:
    """train and evaluate; resumes by itself"""
    config, name = _config_for_training(command)
    model_dir = command.flags.model_dir or os.path.join("runs", name)
    topology = _topology_to_launch(command)
    if command.flags.dry_run:
        from alexnet_estimator.jobs.dry_run import dry_run

        print(dry_run(config, model_dir, topology))
        return EXIT_DONE
    if topology is not None:
        return _launch(command, config, model_dir, topology)
    from alexnet_estimator.jobs.run import open_run
    from alexnet_estimator.jobs.train import train as run_training

    run_training(open_run(config, model_dir))
    return EXIT_DONE


def evaluate(command: Command) -> int:
    """evaluate a checkpoint of a run"""
    model_dir = command.flags.model_dir
    if not model_dir:
        raise ConfigError("--model_dir is missing: name the folder of a run")
    config = _configured(command, _stored_config(model_dir))
    topology = _topology_to_launch(command)
    if topology is not None:
        return _launch(command, config, model_dir, topology)
    from alexnet_estimator.jobs.evaluate import evaluate as run_evaluation
    from alexnet_estimator.jobs.run import open_run

    run = open_run(config, model_dir)
    result = run_evaluation(run, command.flags.checkpoint)
    if run.runtime.is_chief:
        print(
            f"step {result['global_step']}: accuracy {result['top_1_accuracy']:.4f}, "
            f"top-5 {result['top_5_accuracy']:.4f}, loss {result['loss']:.4f} "
            f"on {result['num_images']} images; see {model_dir}/eval/"
        )
    return EXIT_DONE


def convert(command: Command) -> int:
    """turn pictures into sharded TFRecords and dataset.json"""
    from alexnet_estimator.records.convert import convert as convert_pictures

    _require(command, "data_path", "output")
    config = _configured(command, command.flags.config)
    dataset = convert_pictures(config.data.path, command.flags.output, config.convert)
    for name, split in dataset.splits.items():
        print(f"{name}: {split.num_images} images in {len(split.shards)} files")
    print(f"{dataset.num_classes} classes: {', '.join(dataset.class_names[:10])}")
    return EXIT_DONE


def verify(command: Command) -> int:
    """read converted data whole and name every damaged record"""
    from alexnet_estimator.records.verify import verify as verify_records

    config = _configured(command, command.flags.config)
    if not config.data.path:
        raise ConfigError("--data_path is missing: name the folder of converted data")
    damages = verify_records(config.data.path, config.data.label_offset)
    for damage in damages:
        print(damage)
    print("no damage" if not damages else f"{len(damages)} damages")
    return EXIT_DATA if damages else EXIT_DONE


def rank_table(command: Command) -> int:
    """check FILE, or make one: rank_table make --servers=IP[,IP] --devices=8"""
    from alexnet_estimator import rank_table as tables

    action, *files = command.arguments or [""]
    if action == "check" and len(files) == 1:
        print(tables.describe(tables.read(files[0])))
        return EXIT_DONE
    if action == "make" and not files:
        _require(command, "servers", "output")
        servers = command.flags.servers.split(",")
        num_devices = _number(command, "devices", 8)
        print(tables.make_file(servers, num_devices, command.flags.output))
        return EXIT_DONE
    raise ConfigError(
        "write `rank_table check FILE` or `rank_table make --servers=...`"
    )


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb's function (its docstring is the help) and the flags that it reads."""

    function: Callable[[Command], int]
    flags: Sequence[str]
    max_words: int = 0


VERBS: Dict[str, Verb] = {
    "train": Verb(train, TRAIN_FLAGS),
    "evaluate": Verb(
        evaluate,
        "model_dir checkpoint data_path device batch_size rank_table server_id "
        "rendezvous_port".split(),
    ),
    "convert": Verb(convert, "data_path output config".split()),
    "verify": Verb(verify, "data_path config".split()),
    "rank_table": Verb(rank_table, "servers devices output".split(), max_words=2),
}


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command line and return its exit code; no traceback for mistakes."""
    _quieten_tensorflow()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("help", "--help", "-h", "--helpfull"):
            print(_help(is_full="--helpfull" in words))
            return EXIT_DONE
        return _run(words)
    except UserError as error:
        print(f"error: {error.message()}", file=sys.stderr, flush=True)
        return error.exit_code


def _run(words: List[str]) -> int:
    verb = VERBS.get(words[0])
    if verb is None:
        raise ConfigError(f"no verb {words[0]!r}; choose one of {', '.join(VERBS)}")
    if any(word in ("--help", "-h", "--helpfull") for word in words):
        print(_help(is_full="--helpfull" in words, verb=words[0]))
        return EXIT_DONE
    return verb.function(_parse(words, verb))


def _parse(words: List[str], verb: Verb) -> Command:
    """Take a command line apart.

    Raises:
        ConfigError: unknown or unused flags and arguments.
    """
    values = _define_flags()
    try:
        arguments = values(["alexnet_estimator", *_without_overrides(words[1:])])[1:]
    except flags.Error as error:
        raise ConfigError(f"{error}; see --help", "command line") from error
    given = [name for name in FLAG_TABLE if values[name].value is not None]
    problems = [
        f"{words[0]} does not use --{name}" for name in given if name not in verb.flags
    ]
    problems += [
        f"{words[0]} takes no argument {argument!r}; see --help"
        for argument in arguments[verb.max_words :]
    ]
    if problems:
        raise ConfigError(problems, "command line")
    return Command(words, arguments, values, _overrides(words[1:]))


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    for name, flag in FLAG_TABLE.items():
        define = flags.DEFINE_boolean if flag.is_switch else flags.DEFINE_string
        define(name, None, flag.doc, flag_values=values)
        if flag.alias:
            flags.DEFINE_alias(flag.alias, name, flag_values=values)
    return values


def _require(command: Command, *names: str) -> None:
    missing = [
        f"--{name} is missing" for name in names if not command.flags[name].value
    ]
    if missing:
        raise ConfigError(missing, command.words[0])


def _is_override(word: str) -> bool:
    return word.startswith("--config.")


def _without_overrides(words: Sequence[str]) -> List[str]:
    return [word for word in words if not _is_override(word)]


def _overrides(words: Sequence[str]) -> List[Tuple[str, str]]:
    pairs, problems = [], []
    for word in filter(_is_override, words):
        name, equals, value = word[len("--config.") :].partition("=")
        if not equals:
            problems.append(f"{word}: write {word}=VALUE")
        pairs.append((name, value))
    if problems:
        raise ConfigError(problems, "command line")
    return pairs


def _config_for_training(command: Command) -> Tuple[Config, str]:
    """Return the configuration of ``train`` and its name.

    Without --config it is that of the run in --model_dir; in a new folder the
    quick start with the sample data, or the default for data of one's own.
    """
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        stored = os.path.join(given.model_dir, "config.json")
        file = stored if os.path.exists(stored) else None
    is_synthetic = any(name == "data.synthetic" for name, _ in command.overrides)
    if not file and not given.data_path and not is_synthetic:
        # Eight full networks on the cores of one laptop help nobody.
        name = "quickstart_8p.py" if given.rank_table else "quickstart.py"
        file = str(_configs_folder() / name)
    name = pathlib.Path(file).stem if file else "default"
    config = _configured(command, file)
    if not config.data.path and not config.data.synthetic:
        config.data.path = "sample:mono_poly"
    return config, name


def _stored_config(model_dir: str) -> str:
    file = os.path.join(model_dir, "config.json")
    if not os.path.isfile(file):
        raise ConfigError(
            f"{model_dir} holds no run (no config.json); give the --model_dir of train"
        )
    return file


def _topology_to_launch(command: Command) -> Optional["Topology"]:
    """Return the topology whose ranks this process has to start; None: it trains."""
    from alexnet_estimator import launch
    from alexnet_estimator import rank_table as tables

    path = command.flags.rank_table
    if not path or launch.is_rank_process(os.environ):
        return None
    return tables.read(path, wait_secs=TABLE_WAIT_SECS)


def _launch(
    command: Command, config: Config, model_dir: str, topology: "Topology"
) -> int:
    """Start this server's ranks; raw pictures are converted before, once."""
    from alexnet_estimator import launch
    from alexnet_estimator import rank_table as tables
    from alexnet_estimator.jobs.run import open_data
    from alexnet_estimator.runtime import settle_device

    server_id = tables.local_server(topology, command.flags.server_id)
    backend = "npu" if settle_device(config.runtime.device) == "npu" else "horovod"
    open_data(config, model_dir)
    default_port = 29400 if len(topology.servers) > 1 else 0
    port = _number(command, "rendezvous_port", default_port)
    return launch.run(command.words, topology, server_id, backend, model_dir, port)


def _number(command: Command, name: str, default: int) -> int:
    text = command.flags[name].value
    if text is None:
        return default
    if not text.isdigit():
        raise ConfigError(f"--{name} is {text!r}: must be a whole number")
    return int(text)


def _configs_folder() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parent.parent / "configs"


def _configured(command: Command, file: Optional[str]) -> Config:
    """Return a configuration file's fields with the flags applied, validated."""
    config = config_lib.load_config_file(file) if file else config_lib.default_config()
    values = command.flags
    given = [
        (flag.field, values[name].value)
        for name, flag in FLAG_TABLE.items()
        if flag.field and values[name].value is not None
    ]
    if values.epoch is not None and values.train_steps is None:
        given.append(("train.steps", "0"))
    config_lib.apply_overrides(config, [*given, *command.overrides])
    if config.data.path and not config.data.path.startswith("sample:"):
        config.data.path = os.path.abspath(config.data.path)
    config_lib.validate(config)
    return config


def _help(is_full: bool = False, verb: str = "") -> str:
    names = VERBS[verb].flags if verb else FLAG_TABLE
    lines = [f"usage: python -m alexnet_estimator {verb or 'VERB'} [flags]", ""]
    if not verb:
        lines += [f"  {n:<12}{v.function.__doc__}" for n, v in VERBS.items()] + [""]
    for name in names:
        flag = FLAG_TABLE[name]
        alias = f" (or --{flag.alias})" if flag.alias else ""
        lines.append(f"  --{name:<16}{flag.doc}{alias}")
    lines += ["  --config.SECTION.FIELD=VALUE  any field; --helpfull lists them all"]
    if is_full:
        lines += ["", "fields:", config_lib.describe_fields()]
    return "\n".join(lines)


def _quieten_tensorflow() -> None:
    """Keep TensorFlow's start-up chatter from burying our own messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for module in ("tensorflow", "tensorboard"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)


if __name__ == "__main__":
    sys.exit(main())
