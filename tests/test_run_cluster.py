"""One command trains on several servers, and the cluster examples are valid."""

import contextlib
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List

import pytest

from alexnet_estimator import rank_table
from alexnet_estimator.__main__ import VERBS
from alexnet_estimator.command_line import parse
from tests.test_launch import wait_until

yaml = pytest.importorskip("yaml", reason="it comes with ml_collections")
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = REPOSITORY / "tests" / "programs"
EXAMPLES = REPOSITORY / "examples" / "cluster"
SERVERS = ["10.0.0.1", "10.0.0.2"]


class Cluster:
    """Two servers, whose launchers are played by ``fake_run_1p.sh``."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / "servers"
        self.folder.mkdir()
        launch = folder / "launch folder"
        launch.mkdir()
        self._script = launch / "run_cluster.sh"
        shutil.copy(str(REPOSITORY / "launch" / "run_cluster.sh"), str(self._script))
        shutil.copy(str(PROGRAMS / "fake_run_1p.sh"), str(launch / "run_1p.sh"))
        (launch / "setup_env.sh").write_text(f"echo '{sys.executable}'")

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """Run the command; all processes that it has started end with the block."""
        ssh = str(PROGRAMS / "fake_ssh.sh")
        popen = subprocess.Popen(
            ["bash", str(self._script), *words, f"--folder={self.folder}"],
            cwd=str(REPOSITORY),
            env={"PATH": "/usr/bin:/bin", "ALEXNET_SSH": f"sh {ssh}", **SETTLE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        try:
            yield popen
        finally:
            self.end(0, 0)
            popen.communicate(timeout=20)

    def wait_until_ready(self) -> None:
        wait_until(lambda: len(list(self.folder.glob("*.ready"))) == len(SERVERS))

    def end(self, *codes: int) -> None:
        """Let the launchers end, unless they have been told so."""
        for server, code in zip(SERVERS, codes):
            path = self.folder / f"{server}.code"
            if not path.exists():
                path.write_text(str(code))

    def num_signals(self) -> List[int]:
        paths = [self.folder / f"{server}.signals" for server in SERVERS]
        return [p.read_text().count("TERM") if p.exists() else 0 for p in paths]


SETTLE = {"ALEXNET_SETTLE_SECS": "0"}


@pytest.fixture
def cluster(tmp_path: pathlib.Path) -> Cluster:
    return Cluster(tmp_path)


def test_all_servers_get_the_table_and_the_flags(cluster: Cluster) -> None:
    with cluster.start(",".join(SERVERS), "--devices=2", "--x=a 'b' $c") as popen:
        cluster.wait_until_ready()
        cluster.end(0, 0)
        output, errors = popen.communicate(timeout=20)
    assert (popen.returncode, output, errors) == (0, "step 1 on 10.0.0.1\n", "")
    for server in SERVERS:
        (cluster.folder / f"{server}.table").rename(cluster.folder / f"{server}.json")
        topology = rank_table.read(str(cluster.folder / f"{server}.json"))
        assert topology.servers == tuple(SERVERS) and topology.num_ranks == 4
        flags = (cluster.folder / f"{server}.flags").read_text().splitlines()
        expected = [
            f"--server_id={server}",
            "--x=a 'b' $c",
            f"--folder={cluster.folder}",
        ]
        assert flags[1:] == expected


@pytest.mark.parametrize(
    "codes, expected",
    [((0, 3), 3), ((5, 75), 5), ((75, 75), 75), ((1, 2), 2), ((0, 255), 5)],
)
def test_the_exit_code_is_that_of_the_job(
    cluster: Cluster, tmp_path: pathlib.Path, codes: Any, expected: int
) -> None:
    table = tmp_path / "my table.json"
    rank_table.write(rank_table.make(SERVERS, 1), str(table))
    with cluster.start(str(table)) as popen:
        cluster.wait_until_ready()
        cluster.end(*codes)
        _, errors = popen.communicate(timeout=20)
    assert popen.returncode == expected
    for server, code in zip(SERVERS, codes):
        is_failure = code not in (0, 75)
        assert (f"server {server} ended with exit code {code}" in errors) == is_failure
    assert ("step 1 on 10.0.0.2" in errors) == (codes[1] not in (0, 75))
    assert ("ssh failed" in errors) == (255 in codes)


def test_a_server_that_fails_ends_the_others(cluster: Cluster) -> None:
    with cluster.start(",".join(SERVERS)) as popen:
        cluster.wait_until_ready()
        (cluster.folder / f"{SERVERS[1]}.code").write_text("4")
        assert popen.wait(30) == 4
    assert cluster.num_signals() == [2, 0]


def test_signals_reach_all_servers(cluster: Cluster) -> None:
    with cluster.start(",".join(SERVERS)) as popen:
        cluster.wait_until_ready()
        popen.send_signal(signal.SIGINT)
        wait_until(lambda: cluster.num_signals() == [1, 1])
        assert popen.poll() is None  # They may save.
        cluster.end(75, 75)
        assert popen.wait(20) == 75


def test_servers_stop_when_the_command_is_killed(cluster: Cluster) -> None:
    with cluster.start(",".join(SERVERS)) as popen:
        cluster.wait_until_ready()
        popen.kill()
        wait_until(lambda: cluster.num_signals() == [1, 1])


def test_mistakes_are_named_before_any_login(cluster: Cluster) -> None:
    for word, message in (
        ("--config=x", "name a rank table or hosts"),
        ("none.json", "no such file"),
        ("10.0.0.1,10.0.0.1", "is named twice"),
    ):
        with cluster.start(word) as popen:
            _, errors = popen.communicate(timeout=20)
        assert popen.returncode == 2 and message in errors
    assert list(cluster.folder.glob("*.ready")) == []


# Examples.


def read_manifests(name: str) -> List[Dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def check_command_line(words: List[str]) -> None:
    """Fail if the program would refuse the command line."""
    parse(words, VERBS[words[0]])


@pytest.mark.parametrize("name", ["kubernetes.yaml", "volcano.yaml"])
def test_manifests_fit_the_program(name: str) -> None:
    *others, job = read_manifests(name)
    kinds = {"kubernetes.yaml": "batch/v1", "volcano.yaml": "batch.volcano.sh/v1alpha1"}
    assert (job["apiVersion"], job["kind"]) == (kinds[name], "Job")
    holder = job["spec"]["tasks"][0] if "tasks" in job["spec"] else job["spec"]
    pod = holder["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    variables = {variable["name"] for variable in container["env"]}
    text = "\n".join(container["args"])
    commands = re.findall(r"-m alexnet_estimator ((?:[^\n]|(?<=\\)\n)*)", text) or [
        text.replace("\n", " ")
    ]
    for command in commands:
        check_command_line(command.replace("\\\n", " ").split())
    assert variables <= set(re.findall(r"[A-Z_]{3,}", text))
    for service in others:
        labels = holder["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert service["metadata"]["name"] == pod["subdomain"]


def test_the_slurm_script_fits_the_program() -> None:
    path = EXAMPLES / "slurm.sh"
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text().replace("\\\n", " ")
    commands = re.findall(r"-m alexnet_estimator ([^\n|]*?)(?:\"\$@\"|\n)", text)
    assert len(commands) == 2
    for command in commands:
        check_command_line(command.split())
    assert "--requeue" in text and "code == 75" in text
