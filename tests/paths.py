"""Where the checkout is, for tests that start processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "backend")])
"""Where a process finds `kdal`, `kdal_core` and the tests, whatever folder it runs in."""
