"""What the built package holds, and that its base install is a client and nothing else."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.install.conftest import ROOT

TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TABLE["project"]
EXTRAS = PROJECT["optional-dependencies"]
SERVED = ["server", "embedded", "litellm", "sentence-transformers"]
SERVER_ONLY = ("aiohttp", "msgspec", "openai", "opentelemetry", "pydantic", "rich", "yaml", "numpy")


@pytest.fixture
def wheel(clone: Path, tmp_path: Path) -> Path:
    (clone / "README.md").write_text("# Model Router\n")
    build = f"import setuptools.build_meta as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)  # noqa: S603 - our own interpreter
    return next(tmp_path.glob("*.whl"))


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=;!~ ]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sources() -> set[str]:
    """Return every file that the wheel must hold."""
    found = set()
    for folder, package in ((ROOT / "clients/python", "modelrouter"), (ROOT, "router_server")):
        for path in (folder / package).rglob("*"):
            if path.suffix in {".py", ".pyi", ".typed", ".json"} and "__pycache__" not in path.parts:
                found.add(str(path.relative_to(folder)))
    return found


def test_the_wheel_holds_every_source_and_stub(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]

    assert held == sources()
    assert {
        "modelrouter/py.typed",
        "modelrouter/v1/chat_pb2.pyi",
        "router_server/rpc/convert/chat.py",
    } <= held
    assert licences


def test_every_entry_point_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        listed = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        groups = configparser.ConfigParser()
        groups.read_string(archive.read(listed).decode())
        held = set(archive.namelist())

    points = {value for group in groups.sections() for value in groups[group].values()}

    assert set(groups.sections()) == {"console_scripts", "modelrouter.providers"}
    assert {point.split(":")[0].replace(".", "/") + ".py" for point in points} <= held


def test_the_command_runs_on_the_base_install_alone(wheel: Path, tmp_path: Path) -> None:
    """Nothing of the server's libraries can be imported, as where they are not installed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
sys.modules.update(dict.fromkeys({SERVER_ONLY!r}))
import modelrouter.cli
assert modelrouter.cli.__file__.startswith({str(tmp_path)!r}), modelrouter.cli.__file__
sys.argv = ["modelrouter", "--help"]
modelrouter.cli.main()
"""

    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 - as above

    assert done.returncode == 0, done.stderr
    assert "usage: modelrouter" in done.stdout


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what each file imports, wherever in it, by its topmost name."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in modules:
                yield str(path.relative_to(ROOT)), module.partition(".")[0]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("clients/python/modelrouter", ["numpy"]), ("router_server", SERVED)],
)
def test_every_import_is_a_declared_requirement(folder: str, extras: list[str]) -> None:
    declared = names(PROJECT["dependencies"] + [r for extra in extras for r in EXTRAS[extra]])

    assert undeclared(folder, declared) == set()


def undeclared(folder: str, declared: set[str]) -> set[str]:
    ours = sys.stdlib_module_names | {"modelrouter", "router_server"}
    distributions = packages_distributions()
    return {
        f"{path} imports {module}"
        for path, module in imported(ROOT / folder)
        if module not in ours
        and not declared & {normal(name) for name in distributions.get(module, [module])}
    }


def group(name: str) -> list[str]:
    entries = TABLE["dependency-groups"][name]
    nested = [group(entry["include-group"]) for entry in entries if isinstance(entry, dict)]
    return [entry for entry in entries if isinstance(entry, str)] + [r for inner in nested for r in inner]


def test_every_import_of_the_tests_is_declared_too() -> None:
    requirements = [*PROJECT["dependencies"], *group("dev")]
    declared = names(requirements + [r for extra in SERVED for r in EXTRAS[extra]])

    assert undeclared("tests", declared | {"tests", "bench"}) == set()


def test_the_base_install_is_small() -> None:
    assert names(PROJECT["dependencies"]) == {"grpcio", "protobuf", "googleapis-common-protos"}


_LOCKED = re.compile(r"[A-Za-z0-9._-]+==[0-9][\w.+]*( \\)?|    --hash=sha256:[0-9a-f]{64}( \\)?")


def test_lock_files_name_versions_and_no_place(subtests: pytest.Subtests) -> None:
    for lock in (ROOT / "requirements").iterdir():
        with subtests.test(lock.name):
            lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
            assert [line for line in lines if not _LOCKED.fullmatch(line)] == []
            assert os.sep not in "".join(lines)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("locked.txt", ["server", "embedded"]),
        ("kinds.txt", ["server", "litellm", "sentence-transformers"]),
    ],
)
def test_a_lock_has_whatever_is_required(lock: str, extras: list[str]) -> None:
    pins = re.findall(r"^[\w.-]+(?===)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    # Torch has a lock of its own.
    required = names(PROJECT["dependencies"] + [r for extra in extras for r in EXTRAS[extra]]) - {"torch"}

    assert required <= set(map(normal, pins))
