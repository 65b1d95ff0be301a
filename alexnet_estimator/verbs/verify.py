"""The verify subcommand."""

from alexnet_estimator import console
from alexnet_estimator.command_line import Command, Verb
from alexnet_estimator.errors import EXIT_DATA, EXIT_DONE, ConfigError
from alexnet_estimator.verbs.settings import configure


def verify(command: Command) -> int:
    """Check converted data and name the damaged records."""
    config = configure(command, command.flags.config)
    if not config.data.path:
        raise ConfigError("--data_path is missing: give the folder of converted data")
    console.note(f"reading {config.data.path} ...")
    from alexnet_estimator.records.verify import verify as verify_records

    damages = verify_records(config.data.path, config.data.label_offset)
    summary = console.count(len(damages), "problem") if damages else "no damage"
    console.show("\n".join([*map(str, damages), summary]))
    return EXIT_DATA if damages else EXIT_DONE


VERB = Verb(
    verify,
    "Check converted data and name every damaged record.",
    "data_path config",
    examples=(
        "verify --data_path=photos.data",
        "verify --data_path=/data/imagenet --config.data.label_offset=1",
    ),
    texts={
        "data_path": "Folder of converted data or of ImageNet TFRecords. Required, "
        "e.g. photos.data.",
    },
    sections=("data",),
)
