"""The launch scripts run with fake interpreters that only describe themselves."""

import pathlib
import shlex
import shutil
import subprocess
from typing import Any, Dict, List, NamedTuple, Union

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
STUB = ROOT / "tests" / "doubles" / "python.sh"
TOOLS = (
    "awk bash cat chmod cp cut dirname env flock grep head ln mkdir mktemp mv nproc "
    "readlink rm sed sha256sum sleep tail tr"
).split()


class Python(NamedTuple):
    """The description that an interpreter gives of itself."""

    where: str
    version: str
    machine: str = "x86_64"
    tensorflow: str = "-"
    npu_bridge: str = "missing"
    horovod: str = "missing"


class Machine:
    """A machine with a clone of the project, its own PATH and its own home."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.path = folder / "bin"
        self.log = folder / "log"
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(str(shutil.which(tool)))
        self.clone = self.add_clone("a clone")

    def add_clone(self, name: str) -> pathlib.Path:
        clone = self.folder / name
        for part in ("launch", "constraints"):
            shutil.copytree(str(ROOT / part), str(clone / part))
        for name in ("setup.py", "setup.cfg"):
            shutil.copy(str(ROOT / name), str(clone))
        return clone

    def add_python(self, python: Python) -> pathlib.Path:
        file = self.folder / python.where
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(STUB), str(file))
        facts = "".join(
            f"{name}={shlex.quote(value)}\n" for name, value in python._asdict().items()
        )
        pathlib.Path(f"{file}.facts").write_text(facts)
        return file

    def add_program(self, name: str, text: str) -> None:
        (self.path / name).write_text("#!/bin/bash\n" + text)
        (self.path / name).chmod(0o755)

    def start(
        self,
        *command: Union[str, pathlib.Path],
        cwd: Union[str, pathlib.Path] = "/",
        **variables: str,
    ) -> "subprocess.Popen[str]":
        environment = {
            "PATH": str(self.path),
            "HOME": str(self.folder / "home"),
            "STUB_LOG": str(self.log),
            **variables,
        }
        return subprocess.Popen(
            ["bash", *map(str, command)],
            cwd=str(cwd),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def run(
        self, script: str, *arguments: Any, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        process = self.start(self.clone / "launch" / script, *arguments, **options)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    def calls(self, containing: str = "") -> List[str]:
        """Return the commands that interpreters got since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return [line for line in lines if containing in line]


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


PYTHON_37 = Python("bin/python3", "3.7.5")
WITH_TF = PYTHON_37._replace(tensorflow="tensorflow-1.15.0")
ON_ARM = PYTHON_37._replace(machine="aarch64")
BROKEN_37 = Python("bin/python3.7", "broken")
PYENV_37 = Python("home/.pyenv/versions/3.7.16/bin/python3.7", "3.7.16")
PYTHON_311 = Python("bin/python3.11", "3.11.4")
PYTHON_312 = Python("bin/python", "3.12.1")
NVIDIA_38 = Python("bin/python3", "3.8.10", tensorflow="nvidia_tensorflow-1.15.5")
GPU = 'echo "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-0)"'


@pytest.mark.parametrize(
    "pythons, wish, engine, extra",
    [
        ([PYTHON_37], "", "1.15-intel", ".[tf115intel]"),
        ([PYTHON_37], "1.15", "1.15", ".[tf115]"),
        ([PYTHON_37, PYTHON_311], "2.15", "2.15", ".[tf215]"),
        ([WITH_TF], "", "1.15-found", "."),
        ([WITH_TF], "1.15", "1.15-found", "."),
        ([WITH_TF], "1.15-intel", "1.15-intel", ".[tf115intel]"),
        ([WITH_TF._replace(machine="aarch64")], "", "1.15-found", "."),
        ([ON_ARM, PYTHON_311._replace(machine="aarch64")], "", "2.15", ".[tf215]"),
        ([BROKEN_37, PYTHON_311], "", "2.15", ".[tf215]"),
        ([BROKEN_37, PYENV_37, PYTHON_311], "", "1.15-intel", ".[tf115intel]"),
        ([PYTHON_312, PYTHON_311], "", "2.15", ".[tf215]"),
    ],
)
def test_choose_engine(
    machine: Machine, pythons: List[Python], wish: str, engine: str, extra: str
) -> None:
    for python in pythons:
        machine.add_python(python)
    done = machine.run("setup_env.sh", ALEXNET_TF=wish)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{machine.clone}/.venv/{engine}/bin/python\n"
    assert f"engine {engine} on Python 3." in done.stderr.splitlines()[0]
    (install,) = machine.calls("--editable")
    assert f"--editable {extra}|" in install


@pytest.mark.parametrize(
    "pythons, wish, nvidia_smi, engine",
    [
        ([PYTHON_37, PYTHON_311], "", GPU, "2.15-cuda"),
        (
            [PYTHON_37, PYTHON_311],
            "",
            "echo No devices were found; exit 6",
            "1.15-intel",
        ),
        ([PYTHON_37, PYTHON_311], "1.15-intel", GPU, "1.15-intel"),
        ([PYTHON_37, PYTHON_311], "2.15", GPU, "2.15"),
        ([PYTHON_37, PYTHON_311], "2.15-cuda", "exit 9", "2.15-cuda"),
        ([PYTHON_37], "", GPU, "1.15-intel"),
        ([PYTHON_311._replace(machine="aarch64")], "", GPU, "2.15"),
        ([NVIDIA_38, PYTHON_311], "", GPU, "1.15-found"),
        ([NVIDIA_38], "", "exit 9", "1.15-found"),
        ([WITH_TF, PYTHON_311], "", GPU, "2.15-cuda"),
        ([WITH_TF], "", GPU, "1.15-found"),
    ],
)
def test_gpus_choose_an_engine_that_uses_them(
    machine: Machine, pythons: List[Python], wish: str, nvidia_smi: str, engine: str
) -> None:
    machine.add_program("nvidia-smi", nvidia_smi)
    for python in pythons:
        machine.add_python(python)
    done = machine.run("setup_env.sh", ALEXNET_TF=wish)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{machine.clone}/.venv/{engine}/bin/python\n"
    (install,) = machine.calls("--editable")
    assert (".[tf215cuda]" in install) == (engine == "2.15-cuda")


def test_python_38_is_no_base_without_tensorflow(machine: Machine) -> None:
    machine.add_python(NVIDIA_38._replace(tensorflow="-"))
    done = machine.run("setup_env.sh")
    assert done.returncode == 2
    assert "3.8.10 on x86_64" in done.stderr


def test_onnx_is_an_extra(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    assert machine.run("setup_env.sh", "--with-onnx").returncode == 0
    installs = machine.calls("--editable")
    assert [call.split("|")[2].split()[-1] for call in installs] == [
        ".[tf115intel]",
        ".[onnx]",
    ]


def test_conda_environments_are_looked_at(machine: Machine) -> None:
    python = machine.add_python(Python("my conda/bin/python3.7", "3.7.9"))
    (machine.folder / "home/.conda").mkdir(parents=True)
    listed = f"/nowhere\n{machine.folder}/my conda\n"
    (machine.folder / "home/.conda/environments.txt").write_text(listed)
    done = machine.run("setup_env.sh")
    assert f"on Python 3.7.9 ({python})" in done.stderr


def test_python_variable_decides(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    chosen = machine.add_python(Python("else where/python", "3.10.2"))
    done = machine.run("setup_env.sh", cwd=chosen.parent, PYTHON="./python")
    assert "engine 2.15 on Python 3.10.2" in done.stderr


def test_an_environment_of_ours_is_not_a_base(machine: Machine) -> None:
    machine.add_python(WITH_TF._replace(where="a clone/.venv/old/bin/python3"))
    machine.add_python(PYTHON_311)
    active = f"{machine.clone}/.venv/old/bin:{machine.path}"
    done = machine.run("setup_env.sh", PATH=active)
    assert "engine 2.15" in done.stderr


def test_no_python_says_what_to_install(machine: Machine) -> None:
    machine.add_python(BROKEN_37)
    machine.add_python(PYTHON_312)
    machine.add_python(ON_ARM)
    done = machine.run("setup_env.sh")
    assert done.returncode == 2
    assert done.stdout == ""
    for part in ("Install one", "uv python install 3.7", "apt install python3"):
        assert part in done.stderr
    for seen in (
        "bin/python3.7 does not start",
        "3.12.1 on x86_64",
        "3.7.5 on aarch64",
    ):
        assert done.stderr.count(seen) == 1


@pytest.mark.parametrize(
    "arguments, variables, message",
    [
        ([], {"ALEXNET_TF": "1.14"}, "ALEXNET_TF is '1.14'"),
        ([], {"ALEXNET_TF": "1.15", "PYTHON": "python3.11"}, "PYTHON=python3.11"),
        ([], {"PYTHON": "/no/python"}, "/no/python does not start"),
        (["--with-test"], {}, "unknown argument --with-test"),
    ],
)
def test_mistakes(
    machine: Machine, arguments: List[str], variables: Dict[str, str], message: str
) -> None:
    machine.add_python(PYTHON_37)
    machine.add_python(PYTHON_311)
    done = machine.run("setup_env.sh", *arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert machine.calls() == []


def test_second_run_does_nothing(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    machine.run("setup_env.sh", "--with-tests")
    assert len(machine.calls("--editable")) == 2
    done = machine.run("setup_env.sh")
    assert done.stdout.endswith("/.venv/1.15-intel/bin/python\n")
    machine.run("setup_env.sh", "--with-tests")
    assert machine.calls() == []


def test_scripts_are_found_behind_links(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    made = machine.run("setup_env.sh").stdout
    (machine.folder / "link").symlink_to(machine.clone / "launch")
    assert machine.run(str(machine.folder / "link" / "setup_env.sh")).stdout == made
    (machine.folder / "train").symlink_to(machine.clone / "launch" / "run_1p.sh")
    done = machine.run(str(machine.folder / "train"), "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "--dry_run" in machine.calls()[-1]


def test_engines_stand_side_by_side(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    machine.add_python(PYTHON_311)
    for wish in ("", "2.15"):
        machine.run("setup_env.sh", ALEXNET_TF=wish)
    assert len(machine.calls("-m venv")) == 2
    for wish, engine in (("", "1.15-intel"), ("2.15", "2.15")):
        done = machine.run("setup_env.sh", ALEXNET_TF=wish)
        assert done.stdout.endswith(f"/.venv/{engine}/bin/python\n")
    assert machine.calls() == []


@pytest.mark.parametrize(
    "pythons, arguments, kinds",
    [
        ([PYTHON_37, PYTHON_311], [], ["numbers", "numbers", "others"]),
        ([PYTHON_37], [], ["numbers", "others"]),
        ([PYTHON_311], [], ["numbers", "others"]),
        ([PYTHON_37, PYTHON_311], ["--all-engines"], ["all", "numbers", "others"]),
        ([PYTHON_37, PYTHON_311], ["tests/test_x.py"], ["all"]),
        ([PYTHON_37, PYTHON_311], ["--all-engines", "tests/test_x.py"], ["all"] * 2),
    ],
)
def test_tests_run_on_the_engines_that_are_there(
    machine: Machine,
    pythons: List[Python],
    arguments: List[str],
    kinds: List[str],
) -> None:
    for python in (*pythons, Python("bin/shellcheck", "0")):
        machine.add_python(python)
    (machine.clone / "tests").mkdir()
    shutil.copy(str(ROOT / "tests/run.sh"), str(machine.clone / "tests"))
    done = machine.run("../tests/run.sh", *arguments)
    assert done.returncode == 0, done.stderr
    calls = machine.calls("-m pytest")
    found = []
    for call in calls:
        is_without = "--ignore=tests/test_model_fn.py" in call.split()
        is_with = "tests/test_model_fn.py" in call.split()
        found.append("others" if is_without else "numbers" if is_with else "all")
    assert found == kinds


def test_all_engines_needs_both(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    (machine.clone / "tests").mkdir()
    shutil.copy(str(ROOT / "tests/run.sh"), str(machine.clone / "tests"))
    done = machine.run("../tests/run.sh", "--all-engines")
    assert done.returncode == 2
    assert "no environment for a second engine" in done.stderr


@pytest.mark.parametrize(
    "change", ["setup.py", "setup.cfg", "constraints/1.15.txt", "python"]
)
def test_a_change_makes_it_anew(machine: Machine, change: str) -> None:
    machine.add_python(PYTHON_37)
    machine.run("setup_env.sh")
    machine.calls()
    if change == "python":
        machine.add_python(PYTHON_37._replace(version="3.7.9"))
    else:
        with (machine.clone / change).open("a") as file:
            file.write("# changed\n")
    machine.run("setup_env.sh")
    assert len(machine.calls("-m venv")) == 1


def test_a_broken_environment_is_made_anew(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    machine.run("setup_env.sh")
    (machine.clone / ".venv/1.15-intel/bin/python").unlink()
    machine.calls()
    assert machine.run("setup_env.sh").returncode == 0
    assert len(machine.calls("-m venv")) == 1


@pytest.mark.parametrize("says", ["no room", "error: no room" + "\nmore" * 30])
def test_a_failed_part_shows_why_and_is_tried_again(
    machine: Machine, says: str
) -> None:
    machine.add_python(PYTHON_37)
    fault = {"STUB_FAILS": ".[test]", "STUB_SAYS": says}
    done = machine.run("setup_env.sh", "--with-tests", **fault)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no room" in done.stderr
    assert "installing the test tools failed" in done.stderr
    machine.calls()
    assert machine.run("setup_env.sh", "--with-tests").returncode == 0
    assert machine.calls("-m venv") == []


@pytest.mark.parametrize("step", ["-m venv", "pip setuptools wheel", "--editable"])
def test_half_an_environment_is_made_anew(machine: Machine, step: str) -> None:
    machine.add_python(PYTHON_37)
    assert machine.run("setup_env.sh", STUB_FAILS=step).returncode == 2
    half = machine.clone / ".venv/1.15-intel/half"
    half.mkdir(parents=True)
    machine.calls()
    machine.run("setup_env.sh")
    assert len(machine.calls("-m venv")) == 1
    assert not half.exists()


def test_found_packages_are_not_replaced(machine: Machine) -> None:
    machine.add_python(WITH_TF)
    machine.run("setup_env.sh")
    pins = (machine.clone / ".venv/1.15-found/constraints.txt").read_text()
    assert "absl-py==" in pins
    assert "numpy==" not in pins
    site_packages = machine.clone / ".venv/1.15-found/lib/python3/site-packages"
    assert "import site" in (site_packages / "base.pth").read_text()


def test_two_at_once_make_it_once(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    script = machine.clone / "launch/setup_env.sh"
    processes = [machine.start(script) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert outputs == [f"{machine.clone}/.venv/1.15-intel/bin/python\n"] * 3
    assert len(machine.calls("-m venv")) == 1


def test_horovod_is_built_once_for_each_tensorflow(machine: Machine) -> None:
    machine.add_python(WITH_TF)
    assert machine.run("setup_env.sh", "--with-horovod").returncode == 0
    assert len(machine.calls(" wheel --no-build-isolation")) == 1
    wheels = machine.folder / "home/.cache/alexnet_estimator/wheels"
    assert (wheels / "tensorflow-1.15.0-python3.7-x86_64/horovod.whl").is_file()

    machine.clone = machine.add_clone("second")
    assert machine.run("setup_env.sh", "--with-horovod").returncode == 0
    assert machine.calls(" wheel --no-build-isolation") == []

    machine.add_python(PYTHON_37._replace(tensorflow="tensorflow-1.15.5"))
    machine.run("setup_env.sh", "--with-horovod")
    assert len(machine.calls(" wheel --no-build-isolation")) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_horovod_gets_nccl_where_cuda_has_a_compiler(
    machine: Machine, fails: bool
) -> None:
    machine.add_program("nvidia-smi", GPU)
    machine.add_program("nvcc", "")
    machine.add_python(PYTHON_311)
    fault = {"STUB_FAILS": "-nccl --force"} if fails else {}
    done = machine.run("setup_env.sh", "--with-horovod", **fault)
    assert done.returncode == 0, done.stderr
    builds = [call.split("|")[-1] for call in machine.calls(" wheel --no-build-iso")]
    assert builds == (["NCCL", ""] if fails else ["NCCL"])
    assert ("cannot be built here" in done.stderr) == fails


def test_the_horovod_of_a_container_is_kept(machine: Machine) -> None:
    machine.add_python(NVIDIA_38._replace(horovod="there"))
    assert machine.run("setup_env.sh", "--with-horovod").returncode == 0
    assert machine.calls("--find-links") == []


def test_a_failed_horovod_build_says_what_to_install(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    done = machine.run("setup_env.sh", "--with-horovod", STUB_FAILS=" wheel --no-b")
    assert done.returncode == 2
    assert "apt install g++ make" in done.stderr


def test_run_1p_passes_everything_on(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    user = machine.folder / "user's folder"
    user.mkdir()
    flags = ["--data_path=my data", "--epoch", "2"]
    done = machine.run("run_1p.sh", *flags, cwd=user, PYTHONPATH="/mine")
    assert done.returncode == 0, done.stderr
    calls = machine.calls()
    assert calls[-1] == (
        f"{user}|/mine|-m alexnet_estimator train --data_path=my data --epoch 2|"
    )
    assert not any("--find-links" in call for call in calls)


def test_run_1p_returns_the_exit_code(machine: Machine) -> None:
    machine.add_python(PYTHON_37)
    assert machine.run("run_1p.sh", STUB_FAILS="_estimator train").returncode == 1
    assert machine.run("run_1p.sh", PYTHON="/no/python").returncode == 2


@pytest.mark.parametrize(
    "flags, npu_bridge, wants_horovod",
    [
        ([], "missing", True),
        ([], "there", False),
        (["--device=npu"], "missing", False),
        (["--device", "npu"], "missing", False),
        (["--device=cpu"], "there", True),
        (["--dry_run"], "missing", False),
        (["--help"], "missing", False),
        (["--data_path=/my-help/-dry_run-device=npu"], "missing", True),
    ],
)
def test_run_8p_builds_horovod_where_ranks_need_it(
    machine: Machine, flags: List[str], npu_bridge: str, wants_horovod: bool
) -> None:
    machine.add_python(PYTHON_37._replace(npu_bridge=npu_bridge))
    assert machine.run("run_8p.sh", *flags).returncode == 0
    assert bool(machine.calls("--find-links")) == wants_horovod


@pytest.mark.parametrize(
    "arguments, train_flags",
    [
        ([], "--rank_table={clone}/rank_tables/8p.json"),
        (["my table.json", "--seed=1"], "--rank_table=my table.json --seed=1"),
        (["--x=y.json"], "--rank_table={clone}/rank_tables/8p.json --x=y.json"),
    ],
)
def test_run_8p_takes_a_rank_table(
    machine: Machine, arguments: List[str], train_flags: str
) -> None:
    machine.add_python(PYTHON_37._replace(npu_bridge="there"))
    machine.run("run_8p.sh", *arguments, cwd=machine.folder)
    last = machine.calls()[-1].replace("/launch/..", "")
    expected = train_flags.format(clone=machine.clone)
    assert last == f"{machine.folder}||-m alexnet_estimator train {expected}|"
