"""The door: a verb and flags -> configuration -> one function; errors -> exit codes.

Thin on purpose: what the verbs do is in ``jobs``, ``records``, ``rank_table`` and
``launch``.  TensorFlow is imported by the verbs that need it, so that ``--help`` and
mistakes answer at once.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from alexnet_estimator import config as config_lib
from alexnet_estimator import console, launch
from alexnet_estimator.command_line import Command, help_text, parse
from alexnet_estimator.config import Config
from alexnet_estimator.errors import (
    EXIT_DATA,
    EXIT_DONE,
    EXIT_STOPPED,
    ConfigError,
    UserError,
)

if TYPE_CHECKING:
    from alexnet_estimator.rank_table import Topology

# As long as HCCL itself waits for a table that the cluster's controller still fills.
TABLE_WAIT_SECS = 1800
EXIT_PIPE = 128 + signal.SIGPIPE  # As of a program that the signal ends.


def train(command: Command) -> int:
    """train and evaluate; resumes by itself"""
    config, name = _config_for_training(command)
    model_dir = command.flags.model_dir or os.path.join("runs", name)
    topology = _topology_to_launch(command)
    _check_warm_start(config, model_dir, topology)
    if command.flags.dry_run:
        from alexnet_estimator.jobs.dry_run import dry_run

        console.show(dry_run(config, model_dir, topology))
        return EXIT_DONE
    if topology is not None:
        return _launch(command, config, model_dir, topology)
    from alexnet_estimator.jobs.run import open_run
    from alexnet_estimator.jobs.train import train as run_training

    run_training(open_run(config, model_dir))
    return EXIT_DONE


def evaluate(command: Command) -> int:
    """evaluate a checkpoint of a run"""
    command.require("model_dir")
    model_dir = command.flags.model_dir
    config = _configured(command, _stored_config(model_dir))
    topology = _topology_to_launch(command)
    if topology is not None:
        return _launch(command, config, model_dir, topology)
    from alexnet_estimator.jobs.evaluate import evaluate as run_evaluation
    from alexnet_estimator.jobs.run import open_run

    run = open_run(config, model_dir)
    result = run_evaluation(run, command.flags.checkpoint)
    if run.runtime.is_chief:
        console.show(
            f"step {result['global_step']}: accuracy {result['top_1_accuracy']:.4f}, "
            f"top-5 {result['top_5_accuracy']:.4f}, loss {result['loss']:.4f} "
            f"on {result['num_images']} images; see {model_dir}/eval/"
        )
    return EXIT_DONE


def predict(command: Command) -> int:
    """PICTURES...: classify files, folders, zips or a .txt list of them"""
    from alexnet_estimator.jobs.predict.classifier import find_record, open_classifier
    from alexnet_estimator.jobs.predict.job import predict as run_prediction

    command.require("model_dir")
    given = command.flags
    config = _configured(command, find_record(given.model_dir))
    summary = run_prediction(
        open_classifier(given.model_dir, config, given.checkpoint),
        command.arguments,
        given.output or "-",
        command.number("top_k", 1),
        given.format or "",
    )
    console.note(  # Not printed: standard output may be the data.
        f"{summary.num_images} pictures, {len(summary.rejects)} unreadable, "
        f"{summary.images_per_sec:.1f} images/s"
    )
    return EXIT_DONE


def export(command: Command) -> int:
    """write SavedModel, frozen graph or ONNX, compared with the run"""
    from alexnet_estimator.jobs.export.job import export as run_export
    from alexnet_estimator.jobs.predict.classifier import find_record

    command.require("model_dir", "output")
    given = command.flags
    config = _configured(command, find_record(given.model_dir))
    formats = (given.format or "saved_model,frozen").split(",")
    batch_size = command.number("batch_size", 0) or None
    done = run_export(
        config, given.model_dir, given.output, formats, batch_size, given.checkpoint
    )
    console.show(
        f"step {done.global_step} is in {done.folder}: on {done.num_pictures} pictures "
        f"the exports differ from it by {done.max_difference:.2g} at most"
    )
    if "frozen" in formats:
        console.show(f"for Ascend inference: sh {done.folder}/to_om.sh Ascend310")
    return EXIT_DONE


def convert(command: Command) -> int:
    """turn pictures into sharded TFRecords and dataset.json"""
    from alexnet_estimator.records.convert import convert as convert_pictures

    command.require("data_path", "output")
    config = _configured(command, command.flags.config)
    dataset = convert_pictures(config.data.path, command.flags.output, config.convert)
    for name, split in dataset.splits.items():
        console.show(f"{name}: {split.num_images} images in {len(split.shards)} files")
    console.show(
        f"{dataset.num_classes} classes: {', '.join(dataset.class_names[:10])}"
    )
    return EXIT_DONE


def benchmark(command: Command) -> int:
    """[train] [evaluate] [input]: images/s, waiting for input"""
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        file = _stored_config(given.model_dir)
    config = _configured(command, file)
    config.data.synthetic = not config.data.path
    name = pathlib.Path(file).stem if file else "default"
    model_dir = given.model_dir or os.path.join("runs", name)
    from alexnet_estimator.jobs.benchmark import job

    request = job.BenchmarkRequest(
        command.arguments,
        command.number("train_steps", job.NUM_STEPS),
        command.number("warmup_steps", job.NUM_WARMUP_STEPS),
        given.output or "",
        bool(given.profile),
    )
    job.check_request(request)
    topology = _topology_to_launch(command)
    if topology is None:
        job.benchmark(config, model_dir, request)
        return EXIT_DONE
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="alexnet-benchmark-")
        stack.callback(shutil.rmtree, folder)
        code = _launch(command, config, model_dir, topology, folder)
        if code not in (EXIT_DONE, EXIT_STOPPED):
            stack.pop_all()  # People are told to look into the logs.
    return code


def verify(command: Command) -> int:
    """read converted data whole and name every damaged record"""
    from alexnet_estimator.records.verify import verify as verify_records

    config = _configured(command, command.flags.config)
    if not config.data.path:
        raise ConfigError("--data_path is missing: name the folder of converted data")
    damages = verify_records(config.data.path, config.data.label_offset)
    for damage in damages:
        console.show(str(damage))
    console.show("no damage" if not damages else f"{len(damages)} damages")
    return EXIT_DATA if damages else EXIT_DONE


def rank_table(command: Command) -> int:
    """check FILE, or make one for --servers=IP[,IP] --devices=8"""
    from alexnet_estimator import rank_table as tables

    action, *files = command.arguments or [""]
    if action == "check" and len(files) == 1:
        console.show(tables.describe(tables.read(files[0])))
        return EXIT_DONE
    if action == "make" and not files:
        command.require("servers", "output")
        servers = command.flags.servers.split(",")
        num_devices = command.number("devices", 8)
        console.show(tables.make_file(servers, num_devices, command.flags.output))
        return EXIT_DONE
    raise ConfigError(
        "write `rank_table check FILE` or `rank_table make --servers=...`"
    )


def report(command: Command) -> int:
    """RUN [RUN...]: write a page about a run, or several side by side"""
    from alexnet_estimator.report import write_report

    console.show(write_report(command.arguments, command.flags.output))
    return EXIT_DONE


VERBS: Dict[str, Callable[[Command], int]] = {
    function.__name__: function
    for function in (
        train,
        evaluate,
        predict,
        export,
        report,
        convert,
        verify,
        benchmark,
        rank_table,
    )
}
MAX_ARGUMENTS = {"rank_table": 2, "report": 100, "predict": 1 << 20, "benchmark": 3}
HELP = ("help", "--help", "-h", "--helpfull")


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command line and return its exit code; no traceback for mistakes."""
    launch.prepare_signals()
    words = list(sys.argv[1:] if argv is None else argv)
    has_launcher = any(word.startswith("--rank_table") for word in words)
    launch.prepare_tensorflow(has_launcher)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # The reader, `head` perhaps, wants no more.
        console.drop_output()
        return EXIT_PIPE
    except UserError as error:
        print(f"{_in_red('error:')} {error.message()}", file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        if error.filename != console.STDOUT_NAME:
            raise
        console.drop_output()
        problem = f"{console.STDOUT_NAME}: {error.strerror}; send the output elsewhere"
        print(f"{_in_red('error:')} {problem}", file=sys.stderr, flush=True)
        return EXIT_DATA
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_STOPPED


def _run(words: List[str]) -> int:
    verb = words[0] if words and words[0] not in HELP else ""
    if verb and verb not in VERBS:
        raise ConfigError(f"no verb {verb!r}; choose one of {', '.join(VERBS)}")
    if not words or any(word in HELP for word in words):
        docs = {name: function.__doc__ or "" for name, function in VERBS.items()}
        console.show(help_text(docs, verb, is_full="--helpfull" in words))
        return EXIT_DONE
    command = parse(words, MAX_ARGUMENTS.get(verb, 0))
    console.be_quiet(bool(command.flags.quiet))
    return VERBS[verb](command)


def _in_red(text: str) -> str:
    """Colour text for stderr: on a terminal, if the user and no log file object."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if is_plain or not sys.stderr.isatty() or launch.is_rank_process(os.environ):
        return text
    return f"\033[31m{text}\033[0m"


def _config_for_training(command: Command) -> Tuple[Config, str]:
    """Return the configuration of ``train`` and its name.

    Without --config it is that of the run in --model_dir; in a new folder the
    quick start with the sample data, or the default for data of one's own.
    """
    given = command.flags
    file = given.config
    if not file and given.model_dir:
        stored = os.path.join(given.model_dir, config_lib.RECORD_FILE)
        file = stored if os.path.exists(stored) else None
    is_synthetic = any(name == "data.synthetic" for name, _ in command.overrides)
    if not file and not given.data_path and not is_synthetic:
        # Eight full networks on the cores of one laptop help nobody.
        name = "quickstart_8p.py" if given.rank_table else "quickstart.py"
        file = str(config_lib.ready_made_folder() / name)
    name = pathlib.Path(file).stem if file else "default"
    config = _configured(command, file)
    if not config.data.path and not config.data.synthetic:
        config.data.path = "sample:mono_poly"
    return config, name


def _stored_config(model_dir: str) -> str:
    file = os.path.join(model_dir, config_lib.RECORD_FILE)
    if not os.path.isfile(file):
        raise ConfigError(
            f"{model_dir} holds no run (no config.json); give the --model_dir of train"
        )
    return file


def _topology_to_launch(command: Command) -> Optional["Topology"]:
    """Return the topology whose ranks this process has to start; None: it trains."""
    from alexnet_estimator import rank_table as tables

    path = command.flags.rank_table
    if not path or launch.is_rank_process(os.environ):
        return None
    return tables.read(path, wait_secs=TABLE_WAIT_SECS)


def _check_warm_start(
    config: Config, model_dir: str, topology: Optional["Topology"]
) -> None:
    """Look at the source before pictures are converted; of several servers, one has it.

    Raises:
        UserError: it cannot be used.
    """
    is_elsewhere = topology is not None and len(topology.servers) > 1
    is_checked = launch.is_rank_process(os.environ)
    if config.warm_start.path and not is_elsewhere and not is_checked:
        from alexnet_estimator.jobs.first_weights import check_source

        check_source(config, model_dir)


def _launch(
    command: Command,
    config: Config,
    model_dir: str,
    topology: "Topology",
    logs_dir: str = "",
) -> int:
    """Start this server's ranks; raw pictures are converted before, once.

    The logs go to ``model_dir``, or where it must not be touched, to ``logs_dir``.
    """
    from alexnet_estimator import rank_table as tables
    from alexnet_estimator.jobs.run import open_data
    from alexnet_estimator.runtime import settle_device

    server_id = tables.local_server(topology, command.flags.server_id)
    backend = "npu" if settle_device(config.runtime.device) == "npu" else "horovod"
    open_data(config, model_dir)
    options = launch.Options(
        max_restarts=command.number("max_restarts", 0),
        hang_timeout_secs=command.number("hang_timeout_secs", 900),
        start_timeout_secs=command.number("start_timeout_secs", 3600),
        rendezvous_port=command.number("rendezvous_port", 0),
    )
    logs_dir = logs_dir or model_dir
    return launch.run(command.words, topology, server_id, backend, logs_dir, options)


def _configured(command: Command, file: Optional[str]) -> Config:
    """Return a configuration file's fields with the flags applied, validated."""
    config = config_lib.load_config_file(file) if file else config_lib.default_config()
    config_lib.apply_overrides(config, command.fields())
    if config.data.path and not config.data.path.startswith("sample:"):
        config.data.path = os.path.abspath(config.data.path)
    if config.warm_start.path:
        config.warm_start.path = os.path.abspath(config.warm_start.path)
    config_lib.validate(config, command.words[0])
    return config


if __name__ == "__main__":
    sys.exit(main())
