"""Modules import only modules of lower floors, and sizes have limits."""

import ast
import pathlib
import re
import subprocess
import sys
from typing import Dict, Iterator, List, NamedTuple, Union

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "alexnet_estimator"

# A module imports only modules of lower floors.
FLOORS = {
    "console": 0,
    "engine": 0,
    "errors": 0,
    "finding": 0,
    "files": 0,
    "machine": 0,
    "rules": -1,  # Only the schema and networks need them.
    "schema": 0,
    "disk": 1,
    "networks": 1,
    "paths": 1,
    "checkpoints": 2,
    "config": 2,
    "locks": 2,
    "rank_environment": 2,
    "rank_table": 2,
    "command_line": 3,
    "run_record": 3,
    "launch": 3,
    "records": 3,
    "optim": 3,
    "config_file": 4,
    "report": 4,
    "inputs": 4,
    "warm_start": 4,
    "hooks": 4,
    "runtime": 4,
    "model_fn": 5,
    "jobs": 6,
    "verbs": 7,
    "__main__": 8,
}
WITHOUT_TENSORFLOW = (
    "console",
    "engine",
    "errors",
    "files",
    "locks",
    "machine",
    "schema",
    "networks",
    "config",
    "checkpoints",
    "config_file",
    "disk",
    "paths",
    "run_record",
    "command_line",
    "rank_environment",
    "rank_table",
    "launch",
    "records",
    "report",
    "runtime.npu",
    "runtime.host",
    "jobs.data",
    "verbs.benchmark",
    "verbs.train",
    "__main__",
)

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50  # More than a screen, 40, needs a reason.
MAX_PARAMETERS = 6

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class Import(NamedTuple):
    """One imported module, by its full name."""

    where: str
    room: str
    module: str


class Source(NamedTuple):
    """One file of the package."""

    name: str
    room: str
    text: str
    tree: ast.Module


def load(path: pathlib.Path) -> Source:
    name = path.relative_to(PACKAGE).as_posix()
    text = path.read_text(encoding="utf-8")
    return Source(name, re.split(r"[/.]", name)[0], text, ast.parse(text))


SOURCES = [load(path) for path in sorted(PACKAGE.rglob("*.py"))]


def imports() -> Iterator[Import]:
    """Return all imports of the package, including those within functions."""
    for source in SOURCES:
        for node in ast.walk(source.tree):
            where = f"{source.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(where, source.room, alias.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{where}: relative import"
                for alias in node.names:
                    yield Import(where, source.room, f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Str) and re.fullmatch(r"\w+(\.\w+)+", node.s):
                # The argument of importlib.import_module.
                if node.s.split(".")[0] in ("npu_bridge", "hccl", "horovod"):
                    yield Import(where, source.room, node.s)


IMPORTS = list(imports())


def importers_of(module: str) -> List[str]:
    """Return the files that import a module or a part of it, without line numbers."""
    pattern = re.escape(module) + r"(\.|$)"
    found = {i.where.split(":")[0] for i in IMPORTS if re.match(pattern, i.module)}
    return sorted(found)


def functions(source: Source) -> Iterator[Function]:
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def last_line(node: ast.AST) -> int:
    return max(getattr(part, "lineno", 0) for part in ast.walk(node))


def test_every_file_is_in_a_room_with_a_floor() -> None:
    assert len(SOURCES) > 30
    rooms = {source.room for source in SOURCES} - {"__init__"}
    assert rooms <= set(FLOORS)


def test_rooms_import_downwards() -> None:
    wrong = []
    for item in IMPORTS:
        if not item.module.startswith("alexnet_estimator."):
            continue
        target = item.module.split(".")[1]
        if target in (item.room, "__version__"):
            continue
        if target not in FLOORS or FLOORS[target] >= FLOORS.get(item.room, -1):
            wrong.append(f"{item.where} imports {item.module}")
    assert not wrong


def test_configs_know_the_schema_only() -> None:
    for path in sorted((REPOSITORY / "configs").glob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if re.match(r"\s*(import|from) ", line)]
        assert found == ["from alexnet_estimator import config as config_lib"], path


@pytest.mark.parametrize(
    "module, allowed",
    [
        ("absl.flags", r"command_line\.py"),
        ("npu_bridge", r"runtime/npu\w*\.py"),
        ("hccl", r"runtime/npu\w*\.py"),
        ("horovod", r"runtime/horovod\.py|launch/\w+\.py"),
    ],
)
def test_one_room_knows(module: str, allowed: str) -> None:
    users = importers_of(module)
    assert [name for name in users if not re.fullmatch(allowed, name)] == []
    assert users or module == "hccl", "the check finds nothing at all"


def test_the_environment_is_read_in_few_rooms() -> None:
    users = {
        source.room
        for source in SOURCES
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
        or (isinstance(node, ast.Name) and node.id == "getenv")
    }
    assert users == {"runtime", "launch", "console", "verbs", "__main__"}


def test_tensorflow_is_the_part_that_all_releases_have() -> None:
    names: Dict[str, List[str]] = {}
    for item in IMPORTS:
        if item.module.split(".")[0] == "tensorflow":
            names.setdefault(item.module, []).append(item.where.split(":")[0])
    assert names == {
        # All modules import it from there, so that graph mode is always set.
        "tensorflow.compat.v1": ["engine/graph_mode.py"],
        # The formats of a checkpoint's index, the same in all releases.
        "tensorflow.core.protobuf.tensor_bundle_pb2": ["checkpoints/index.py"],
        "tensorflow.contrib.opt.LARSOptimizer": ["optim/optimizers.py"],
    }
    pattern = r"\btf\.(contrib|compat)\b"
    assert [s.name for s in SOURCES if re.search(pattern, _without_strings(s))] == []


def _without_strings(source: Source) -> str:
    """Return the dotted names that a file uses."""
    return "\n".join(
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )


def test_rooms_without_tensorflow_load_none() -> None:
    code = "import sys\n" + "".join(
        f"import alexnet_estimator.{room}\n" for room in WITHOUT_TENSORFLOW
    )
    code += "sys.exit('tensorflow' in sys.modules or 'horovod' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code], cwd=str(REPOSITORY)) == 0


def test_files_fit_in_a_head() -> None:
    sizes = {source.name: source.text.count("\n") for source in SOURCES}
    assert {n: size for n, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    sizes = {
        f"{source.name}: {function.name}": last_line(function) - function.lineno + 1
        for source in SOURCES
        for function in functions(source)
    }
    assert {n: size for n, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_functions_have_few_parameters() -> None:
    counts = {}
    for source in SOURCES:
        for function in functions(source):
            arguments = function.args.args + function.args.kwonlyargs
            names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            counts[f"{source.name}: {function.name}"] = len(names)
    assert {n: count for n, count in counts.items() if count > MAX_PARAMETERS} == {}


def test_what_is_public_is_documented() -> None:
    missing = [
        f"{source.name}: {getattr(node, 'name', 'the file')}"
        for source in SOURCES
        for node in _public_nodes(source.tree)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert not missing


def _public_nodes(owner: ast.AST) -> Iterator[ast.AST]:
    yield owner
    for node in getattr(owner, "body", []):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name.startswith("_"):
                continue
            if isinstance(node, ast.ClassDef):
                yield from _public_nodes(node)
            else:
                yield node
