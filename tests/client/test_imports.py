"""What the client brings along: nothing beyond its three dependencies, and numpy only when it is used."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_client_imports_nothing_but_its_dependencies() -> None:
    program = """
import sys
import grpc, google.protobuf.json_format, google.rpc.error_details_pb2, google.rpc.status_pb2
theirs = set(sys.modules)
import modelrouter.cli
ours = {name.partition(".")[0] for name in set(sys.modules) - theirs}
print(*sorted(ours - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )

    assert set(done.stdout.split()) <= {"modelrouter", "google", "grpc"}
