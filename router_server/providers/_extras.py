"""Libraries that only one kind needs, and that whoever wants the kind installs as an extra.

Refuses to know what they are for.
"""

from __future__ import annotations

from importlib.util import find_spec

from router_server.providers import SetupError


def require_extra(extra: str, package: str, provider: str) -> None:
    """Look whether ``package`` can be imported, without importing it.

    Raises:
        SetupError: it cannot; the message names the ``provider`` that needs it and the line that installs it.
    """
    if find_spec(package) is None:
        raise SetupError(
            f"the provider {provider} is of kind {extra}, which needs the package {package}; "
            f"run: pip install 'modelrouter-grpc[{extra}]'"
        )
