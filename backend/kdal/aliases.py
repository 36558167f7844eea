"""Names of types that much of the plugin passes around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
"""A JSON object."""
Progress = Callable[[float], None]
"""Called often during a long step, with the share of it that is done, in [0, 1]."""
