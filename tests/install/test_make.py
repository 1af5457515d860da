"""What `make` says on a machine that lacks something: one clear message that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.conftest import ROOT


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Hold a port that refuses: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program is not None
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE", "MFLAGS"))}
    return subprocess.run(  # noqa: S603 - make is what is tested
        [program, *arguments],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_network_it_says_so_and_what_to_do(clone: Path, closed_port: int) -> None:
    done = make(
        clone,
        "run",
        f"PYTHON={sys.executable}",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=f"http://127.0.0.1:{closed_port}/simple",
    )

    assert done.returncode != 0
    assert "the package index did not answer" in done.stderr
    assert "Check the network" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    log = (clone / ".venv/install.log").read_text()
    assert "Connection refused" in log or "broken by" in log
    assert not (clone / ".venv/.server").exists()


def test_another_failure_of_pip_is_told_in_its_words(clone: Path) -> None:
    (clone / "requirements/locked.txt").write_text("not a requirement\n")

    done = make(clone, "run", f"PYTHON={sys.executable}")

    assert done.returncode != 0
    assert (
        "pip could not install the packages:\nERROR: Invalid requirement: 'not a requirement'" in done.stderr
    )
    assert ".venv/install.log" in done.stderr


def test_without_a_torch_for_the_cpu_it_says_what_to_set(clone: Path) -> None:
    done = make(
        clone, ".venv-vllm/.done", f"PYTHON={sys.executable}", PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1"
    )

    assert done.returncode != 0
    assert "torch==2.13.0+cpu" in done.stderr
    assert "name it in PIP_EXTRA_INDEX_URL, or set PIP_FIND_LINKS" in done.stderr
    assert not (clone / ".venv-vllm/.done").exists()


@pytest.mark.parametrize("command", ["run", "test", "check", "proto"])
def test_without_a_suitable_python_it_says_which_is_needed(clone: Path, tmp_path: Path, command: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        old = programs / name
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(old.stat().st_mode | stat.S_IXUSR)

    done = make(clone, command, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")

    assert done.returncode != 0
    assert "No Python 3.11 or newer" in done.stderr
    assert f"make PYTHON=/path/to/python3.11 {command}" in done.stderr
    assert not (clone / ".venv").exists()


def test_what_is_installed_is_not_installed_again(clone: Path) -> None:
    """The second `make run` starts the server and nothing else."""
    programs = clone / ".venv/bin"
    programs.mkdir(parents=True)
    server = programs / "router-server"
    server.write_text('#!/bin/sh\necho "served with: $@"\n')
    server.chmod(0o755)
    (clone / ".venv/.server").touch()

    done = make(clone, "run", "ARGS=--config mine.yaml", PATH="/usr/bin:/bin")

    assert done.stdout == "served with: serve --config mine.yaml\n"
    assert done.returncode == 0


def test_a_new_lock_file_is_installed(clone: Path) -> None:
    stamp = clone / ".venv/.server"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (1, 1))

    outdated = make(clone, "--question", ".venv/.server").returncode
    stamp.touch()
    installed = make(clone, "--question", ".venv/.server").returncode

    assert (outdated, installed) == (1, 0)


def test_help_lists_the_commands() -> None:
    done = make(ROOT, "help")

    commands = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"run", "test", "check", "proto", "soak", "lock", "clean"} <= set(commands)
