"""The programming interface has few, documented functions, imported when used."""

import inspect
import os
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import alexnet_estimator
from alexnet_estimator.__main__ import VERBS
from alexnet_estimator.machine import is_amd_with_avx2

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", alexnet_estimator.__all__)
def test_every_function_is_there_and_documented(name: str) -> None:
    value = getattr(alexnet_estimator, name)
    assert inspect.getdoc(value)
    assert f"``{name}``" in str(alexnet_estimator.__doc__)
    assert name in dir(alexnet_estimator)


def test_functions_are_not_hidden_by_modules() -> None:
    # Importing alexnet_estimator.x would replace the function x.
    modules = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    modules |= {m.name for m in pkgutil.iter_modules(alexnet_estimator.__path__)}
    assert "networks" in modules
    assert not modules & set(alexnet_estimator.__all__)


def test_every_verb_has_its_function() -> None:
    exceptions = {
        "doctor": "for people at a terminal of the machine that it checks",
        "rank_table": "for people who set a cluster up; its name is that of a module",
        "report": "is write_report here: its name is that of a module",
    }
    missing = set(VERBS) - set(alexnet_estimator.__all__)
    assert missing == set(exceptions)
    assert "write_report" in alexnet_estimator.__all__


def test_other_names_are_missing() -> None:
    with pytest.raises(AttributeError, match="'alexnet_estimator' has no .*'trian'"):
        alexnet_estimator.trian


def test_tensorflow_waits_until_it_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "programs" / "use_as_notebook.py")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "KMP_SETTINGS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "content,expected",
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 fma\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx fma\n", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx avx2 avx512f\n", False),
    ],
)
def test_only_amd_processors_are_told_to_use_avx2(
    tmp_path: pathlib.Path, content: str, expected: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(content)
    assert is_amd_with_avx2(str(file)) == expected
    assert not is_amd_with_avx2(str(tmp_path / "none"))


def test_mkl_uses_as_many_threads_as_are_configured(tmp_path: pathlib.Path) -> None:
    program = """
import os, sys
from alexnet_estimator.__main__ import main
code = main(["train", "--config.data.synthetic=True", "--dry_run", *sys.argv[1:]])
sys.exit(code or os.environ["OMP_NUM_THREADS"])
"""
    words = ["--config.runtime.num_threads=3", f"--model_dir={tmp_path}/run"]
    words.append("--device=cpu")
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.stderr.splitlines()[-1] == "3", done.stderr


def test_the_example_runs(picture_folder: str, tmp_path: pathlib.Path) -> None:
    script = str(ROOT / "examples" / "python_api.py")
    done = subprocess.run(
        [sys.executable, script, picture_folder, str(tmp_path / "all of it")],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == 0, done.stderr
    assert "('apple', 'ocean', 'tree') {'train': 48, 'validation': 12}" in done.stdout
    assert "60 rows are in" in done.stdout
    rows = (tmp_path / "all of it" / "answers.csv").read_text().splitlines()
    assert len(rows) == 61
    (loss,) = re.findall(r"Estimator's loss is (\S+) on 12 images\n$", done.stdout)
    # Without training, the loss would be log(3) or more.
    assert float(loss) < 0.6
