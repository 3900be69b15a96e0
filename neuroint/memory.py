"""Peak memory of a stretch of work in a process that does many."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

log = logging.getLogger(__name__)

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def measure_anew(device: torch.device) -> None:
    """Forget the peak so far: trials share processes, and the highest of all would be told of each.

    Where the system offers no way (macOS), the peak stays that of the process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        try:
            _RESET.write_text("5")  # Linux: the high-water mark becomes what is resident now
        except OSError as error:
            log.debug("the peak of memory is that of the whole process: %s", error)


def peak_mb(device: torch.device) -> float:
    """Read the highest memory since ``measure_anew``, in MiB: allocated on a card, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    import resource

    unit = 2**20 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def files_mb(process: int | str = "self") -> float:
    """Read what a process holds of files, mostly libraries, in MiB; 0 where the system does not say."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024
