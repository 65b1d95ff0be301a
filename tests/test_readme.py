"""The README's commands are run, or are listed here with the reason why not."""

import pathlib
import re
import shlex
import shutil
import subprocess
from typing import List, Optional
from unittest import mock

import pytest

from alexnet_estimator import __main__ as cli
from alexnet_estimator import rank_table
from alexnet_estimator.jobs import train as train_job

ROOT = pathlib.Path(__file__).resolve().parent.parent
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"

# Commands between backquotes, apart from flags, names of files and words.
_PROGRAMS = (
    r'bash|python|"\$python"|python=\S+|alexnet-estimator|pip|docker|tensorboard'
)
_INLINE = rf"`((?:\w+=\S+ )?(?:{_PROGRAMS}) [^`]+)`"
# Placeholders in the commands, and their values in these tests.
PLACEHOLDERS = {
    r"/path/to/pictures|\bX\b": "PICTURES",
    r"/path/to/run\b": "NEW",
    r"/path/to/rank_table\.json": "TABLE.json",
    "THIS_IP": "127.0.0.1",
    r" \[[^]]+\]": "",  # "[flags]" and the like.
}
NOT_RUN = {
    "bash launch/run_1p.sh": "downloads and trains for minutes",
    "bash launch/run_8p.sh": "downloads and trains for minutes",
    "bash launch/setup_env.sh --with-onnx": "downloads; tests/test_setup_env.py",
    'python="$(bash launch/setup_env.sh)"': "downloads; tests/test_setup_env.py",
    "bash tests/run.sh": "runs this test",
    "bash launch/run_1p.sh --config=configs/quickstart.py --data_path=sample:defective"
    " --epoch=2 --warm_start_from=runs/quickstart --model_dir=runs/defective": (
        "downloads, and needs the quick start's run; tests/test_warm_start.py"
    ),
    '"$python" -m alexnet_estimator doctor': "judges this machine; test_doctor.py",
    "bash launch/run_1p.sh --config.model.network=examples/lenet.py"
    " --data_path=PICTURES": "tests/test_networks.py",
    '"$python" examples/python_api.py PICTURES FOLDER': "tests/test_api.py",
    '"$python" -m pip wheel --no-deps --wheel-dir=dist .': "tests/test_packaging.py",
    "docker build -t alexnet-estimator .": "needs Docker",
    "tensorboard --logdir=RUN": "serves until it is stopped; tests/test_metrics_log.py",
}


def commands(name: str) -> List[str]:
    """Return the commands of a document, in order, without comments."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^```text\n.*?^```\n", "", text, flags=re.M | re.S)  # Output.
    found = []
    for block, inline in re.findall(rf"^```\n(.*?)^```|{_INLINE}", text, re.M | re.S):
        found += [inline] if inline else block.splitlines()
    stripped = [re.sub(r"\s+#.*", "", command).strip() for command in found]
    # Commands of the original job are in the table for its users.
    return [c for c in stripped if c and "test/train_full" not in c]


COMMANDS = list(dict.fromkeys(commands("README.md")))


def as_words(command: str) -> Optional[List[str]]:
    """Return the job's command line; launch scripts become dry runs."""
    for pattern, value in PLACEHOLDERS.items():
        command = re.sub(pattern, value, command)
    program, *words = shlex.split(command)
    if program in ("python", "$python") and words[:2] == ["-m", "alexnet_estimator"]:
        return words[2:]
    if program == "alexnet-estimator":
        return words
    if program != "bash" or len(words) < 2:
        return None
    if words[0] == "launch/run_8p.sh" and words[1].endswith(".json"):
        return ["train", f"--rank_table={words[1]}", *words[2:], "--dry_run"]
    is_script = words[0] in ("launch/run_1p.sh", "launch/run_8p.sh")
    return ["train", *words[1:], "--dry_run"] if is_script else None


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, picture_folder: str, data_dir: str
) -> pathlib.Path:
    """Return a folder with everything that the commands name, such as a run."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(picture_folder, str(folder / "PICTURES"))
    shutil.copytree(data_dir, str(folder / "DATA"))
    rank_table.make_file(["127.0.0.1"], 2, str(folder / "TABLE.json"))
    words = [TINY, f"--data_path={data_dir}", f"--model_dir={folder / 'RUN'}"]
    with mock.patch.object(train_job, "write_outcome"):  # It takes seconds.
        assert cli.main(["train", *words, "--train_steps=2", "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in NOT_RUN])
def test_commands_run_as_printed(
    command: str, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = as_words(command)
    assert words is not None, "a new kind: run it here, or say in NOT_RUN why not"
    monkeypatch.chdir(folder)
    if words[0] == "train" and not any(
        word.startswith("--data_path") for word in words
    ):
        words.insert(1, "--data_path=PICTURES")  # The sample data have 91 MB.
    if words[0] == "benchmark":  # The paper's network would take minutes.
        words += [TINY, "--train_steps=2", "--warmup_steps=1"]
    assert cli.main(words) == 0


def test_commands_that_are_not_run_are_in_the_document() -> None:
    assert set(NOT_RUN) <= set(COMMANDS)
    for command in NOT_RUN:
        for path in re.findall(r"(?:launch|tests|examples)/\w+\.\w+", command):
            assert (ROOT / path).is_file()
    for script in [*(ROOT / "launch").glob("*.sh"), ROOT / "tests" / "run.sh"]:
        subprocess.check_call(["bash", "-n", str(script)])


def test_both_languages_have_the_same_commands() -> None:
    assert len(COMMANDS) > 20
    assert commands("README.zh-CN.md") == commands("README.md")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text())
    assert links or name == "CONTRIBUTING.md"
    for link in links:
        assert (ROOT / link).exists(), link
