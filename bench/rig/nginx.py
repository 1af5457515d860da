"""nginx as an upstream that answers at once, and as the collector that traces are sent to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Final

from bench.rig import bodies
from bench.rig.process import BenchError, Process

_MODELS: Final = b'{"object":"list","data":[]}'

PEER: Final = "peer"
"""The first part of the path to which other gateways send their traces."""

_CONFIG: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  default_type application/json;
  sendfile on;
  open_file_cache max=100 inactive=1h;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 64m;
  client_body_buffer_size 4m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/www;
    # A file is no answer to POST, says nginx; here it is.
    error_page 405 =200 $uri;
    location /stream/ {{ default_type text/event-stream; }}
    location /v1/ {{ access_log {folder}/otlp.log; default_type application/x-protobuf; return 200; }}
    location /{peer}/v1/ {{
      access_log {folder}/{peer}.log;
      default_type application/x-protobuf;
      return 200;
    }}
  }}
}}
"""


def answers() -> Mapping[str, bytes]:
    """Return what is served, by path. The first part of a path says which kind of traffic it is for."""
    return {
        "unary/v1/chat/completions": bodies.answer(),
        "stream/v1/chat/completions": bodies.stream(),
        "embed/v1/embeddings": bodies.vectors(),
        "floats/v1/embeddings": bodies.float_vectors(),
        "copy/v1/embeddings": bodies.matrix(),
    }


def start(folder: Path, port: int, core: int) -> Process:
    """Start nginx with the files that it serves in ``folder``.

    Raises:
        BenchError: it is not installed.
    """
    command = which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if command is None:
        raise BenchError("nginx is not installed; Debian, Ubuntu: apt install nginx-light")
    for path, body in answers().items():
        file = folder / "www" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        (folder / "www" / path.partition("/")[0] / "v1" / "models").write_bytes(_MODELS)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, peer=PEER))
    return Process("nginx", [command, "-c", str(config), "-e", "stderr", "-g", "user root;"], core, folder)


def exports(folder: Path, kind: str, sender: str = "otlp") -> int:
    """Return how many batches of that kind, ``traces`` or ``metrics``, the router or a peer has sent."""
    log = folder / f"{sender}.log"
    return log.read_text().count(f"/v1/{kind} ") if log.exists() else 0
