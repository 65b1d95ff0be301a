"""Paths are expanded if the shell has not done so, and unusable ones are refused."""

import os
import pathlib
import pwd

import pytest

from alexnet_estimator.errors import ConfigError
from alexnet_estimator.paths import expand_paths

HOME = pwd.getpwuid(os.getuid()).pw_dir


@pytest.mark.parametrize(
    "text, expected",
    [
        ("~/runs/a", "/home/me/runs/a"),
        ("~", "/home/me"),
        (f"~{pwd.getpwuid(os.getuid()).pw_name}/x", f"{HOME}/x"),
        ("./~/a", "./~/a"),
        ("a~", "a~"),
        ("-", "-"),
        ("sample:mono_poly", "sample:mono_poly"),
        ("$HOME/a [1] \\ 雪", "$HOME/a [1] \\ 雪"),
        ("a:/b", "a:/b"),
        ("//server/share", "//server/share"),
    ],
)
def test_home_folders_are_found(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_paths({"--output": text}) == {"--output": expected}


@pytest.mark.parametrize(
    "text, message",
    [
        ("s3://bucket/run", "mount the storage"),
        ("HDFS://node:9000/x", "mount the storage"),
        ("https://a.b/c.zip", "mount the storage"),
        ("file:///data/x", "write /data/x"),
        ("~nobody-here/x", "no user 'nobody-here'; write ./~nobody-here/x"),
        ("a\nb", r"'a\\nb': control characters"),
        ("a\0b", "control characters"),
        (os.fsdecode(b"caf\xe9"), "not UTF-8"),
    ],
)
def test_other_paths_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        expand_paths({"--model_dir": text, "data.path": text})
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "--model_dir",
        "data.path",
    ]


def test_pictures_may_have_any_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~draft.jpg").touch()
    names = ["line\nbreak.jpg", os.fsdecode(b"\xff.jpg"), "~draft.jpg"]
    given = {name: name for name in names}
    assert list(expand_paths(given, is_any_name_allowed=True).values()) == names
    with pytest.raises(ConfigError, match="mount"):
        expand_paths({"argument 1": "gs://a/b.jpg"}, is_any_name_allowed=True)
