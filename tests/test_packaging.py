"""The wheel and the container files are complete and are described correctly."""

import email.message
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from typing import Any, List

import pytest
import yaml
from packaging.requirements import Requirement

import alexnet_estimator
from alexnet_estimator.errors import EXIT_DONE

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ("alexnet_estimator", "configs", "setup.py", "setup.cfg", "README.md")
DOCKERFILES = ("Dockerfile", "Dockerfile.ascend")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a wheel built from a copy, which has no files of old builds."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*SOURCES, "LICENSE"):
        copy: Any = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(str(ROOT / name), str(folder / "source" / name))
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    command = [*PIP, "wheel", *offline, f"--wheel-dir={folder}", "./source"]
    subprocess.check_call(command, cwd=str(folder))
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder into which the wheel was installed."""
    folder = str(tmp_path_factory.mktemp("installed"))
    command = [*PIP, "install", "--no-index", "--no-deps", f"--target={folder}"]
    subprocess.check_call([*command, str(wheel)])
    return folder


@pytest.fixture(scope="module")
def metadata(wheel: pathlib.Path) -> email.message.Message:
    """Return the metadata of the wheel."""
    with zipfile.ZipFile(str(wheel)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
        return email.message_from_string(archive.read(name).decode())


def test_the_wheel_holds_the_package_and_its_configurations(
    wheel: pathlib.Path, metadata: email.message.Message
) -> None:
    folder = ROOT / "alexnet_estimator"
    suffixes = (".py", ".typed", ".j2", ".css", ".mplstyle")
    files = [path for path in folder.rglob("*.*") if path.suffix in suffixes]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    expected |= {f"alexnet_estimator/configs/{p.name}" for p in _configs()}
    with zipfile.ZipFile(str(wheel)) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    assert names == expected
    assert metadata["Version"] == alexnet_estimator.__version__


def test_the_wheel_says_who_made_it_for_whom(metadata: email.message.Message) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert metadata["Author"] == cited["authors"][0]["name"]
    assert "AlexNet" in metadata["Keywords"] and metadata.get_all("Project-URL")
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


@pytest.mark.parametrize("extra", ["tf115", "tf115intel", "tf215", "tf215cuda"])
def test_an_engine_gets_what_its_constraints_know(
    metadata: email.message.Message, extra: str
) -> None:
    """TensorFlow 1.15 states no upper bounds, so pip would choose protobuf 4."""
    lines = map(Requirement, metadata.get_all("Requires-Dist", []))
    needed = {
        line.name: line.specifier
        for line in lines
        if line.marker and line.marker.evaluate({"extra": extra})
    }
    assert any("tensorflow" in name for name in needed)
    assert {"numpy", "protobuf", "h5py"} <= set(needed) or "115" not in extra
    release = f"{extra[2]}.{extra[3:5]}"
    pins = (ROOT / "constraints" / f"{release}.txt").read_text().splitlines()
    for name, _, pin in (line.partition("==") for line in pins):
        assert name not in needed or pin in needed[name], f"{name}=={pin}"


def test_other_tools_run_what_run_sh_runs() -> None:
    script = (ROOT / "tests" / "run.sh").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    names = {hook["id"] for hook in hooks["repos"][0]["hooks"]}
    tools = re.findall(r"black|isort|flake8|mypy|shellcheck", script)
    assert names == set(tools) and len(names) == 5
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "bash .ci/run"}


def _configs() -> List[pathlib.Path]:
    return list((ROOT / "configs").glob("*.py"))


def test_the_installed_program_trains_from_any_folder(
    installed: str, data_dir: str, tmp_path: pathlib.Path
) -> None:
    program = [sys.executable, os.path.join(installed, "bin", "alexnet-estimator")]
    words = ["--config=configs/tiny.py", f"--data_path={data_dir}", "--train_steps=1"]
    done = subprocess.run(
        [*program, "train", *words],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": installed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    assert done.returncode == EXIT_DONE, done.stdout
    assert "-- done ---" in done.stdout
    assert (tmp_path / "runs" / "tiny" / "model.ckpt-1.index").is_file()
    code = (
        "from alexnet_estimator import config_file\n"
        "print(config_file.__file__, *config_file.ready_made_folder().iterdir())"
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": installed}
    seen = subprocess.check_output(
        [sys.executable, "-c", code], cwd=str(tmp_path), env=environment
    ).decode()
    assert seen.startswith(installed)
    for path in _configs():
        assert os.path.join(installed, "alexnet_estimator/configs", path.name) in seen


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers_copy_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:].strip("/") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*" and copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.strip("/") in allowed, f"{source} is in .dockerignore"
    for script in re.findall(r"\blaunch/\w+\.sh", text):
        assert (ROOT / script).is_file()
    assert re.findall(r"^USER (.*)$", text, re.M)[-1].startswith("1000")
    assert "not been built" in text


def test_citations_have_what_the_format_asks_for() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == alexnet_estimator.__version__
    assert {"message", "title", "authors", "license"} <= set(cited)
    assert len(cited["references"]) >= 6
    for reference in cited["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        for author in reference["authors"]:
            assert "name" in author or {"family-names", "given-names"} <= set(author)
    assert cited["license"] == "Apache-2.0"


def test_the_change_log_tells_of_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## [{alexnet_estimator.__version__}] - " in text
    titles = re.findall(r"^### (.*)$", text, re.M)
    assert set(titles) <= {
        *("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    }
