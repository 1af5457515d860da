from __future__ import annotations

from tests.state.conftest import folder, server

__all__ = ["folder", "server"]
