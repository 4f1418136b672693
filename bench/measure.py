"""What a command and everything it starts use: `python -I -S measure.py RESULT COMMAND...` writes JSON to RESULT.

The process that starts a command must be a small one: a child inherits the peak memory (ru_maxrss) of its parent.
"""

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY = 0.05


def measure(command: list[str]) -> dict[str, float]:
    """CPU of all processes until the last has ended: whoever loses its parent becomes a child of this process.

    Peak memory is that of the largest process as the kernel notes it, or the peaks of all that lived at once if that
    is more: exact for a command of one process, at most too high for others.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    command_id, exit_code, peak = subprocess.Popen(command).pid, 0, 0
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if ended == command_id:
            exit_code = os.waitstatus_to_exitcode(status)
        if ended == 0:
            peak = max(peak, sum(map(_peak, _descendants(os.getpid()))))
            time.sleep(LOOK_EVERY)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "exit_code": exit_code,
        "wall_seconds": time.monotonic() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_megabytes": max(peak, used.ru_maxrss) / 1024,
    }


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for threads in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, _read(threads).split()):
            found += [child, *_descendants(child)]
    return found


def _peak(process: int) -> int:
    """In kilobytes; 0 for a process that has ended."""
    found = re.search(r"VmHWM:\s+(\d+)", _read(Path(f"/proc/{process}/status")))
    return int(found[1]) if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended meanwhile
        return ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measure(sys.argv[2:])))
