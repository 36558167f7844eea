"""How much memory of each NVIDIA GPU is in use, by all processes: worker, server and others."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

PROGRAM = "nvidia-smi"
"""Comes with the driver. It is asked rather than torch, which would take hundreds of megabytes of the GPU to tell."""
SECONDS = 5.0
MIB = 1024**2


@dataclass(frozen=True)
class GpuMemory:
    """Of one GPU, in bytes."""

    index: int
    used: int
    total: int


def gpu_memory() -> list[GpuMemory]:
    """Of each GPU of this machine; none where there is no driver, or it does not answer."""
    program = shutil.which(PROGRAM)
    if program is None:
        return []
    asked = [program, "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
        rows = [[int(cell) for cell in row] for row in csv.reader(answer.splitlines()) if row]
        return [GpuMemory(index, used * MIB, total * MIB) for index, used, total in rows]
    except (OSError, subprocess.SubprocessError, ValueError):  # of a GPU that was split, it says [N/A]
        return []
