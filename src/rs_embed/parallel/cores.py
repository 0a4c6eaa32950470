"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_OWN_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


def cores(own_groups: Path = _OWN_GROUPS, mounted: Path = _MOUNTED) -> int:
    """Return the number of cores that the affinity and the CPU quota of this process allow.

    A quota of a part of a core counts as one, half a core more than two as three. Unlike
    `os.cpu_count`, this is right in containers and jobs of a cluster.

    Parameters
    ----------
    own_groups : pathlib.Path
        The list of control groups of the process, see ``cgroups(7)``.
    mounted : pathlib.Path
        Where control groups are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas(own_groups, mounted))]))


def _quotas(own_groups: Path, mounted: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each control group that the process is in."""
    for line in _read(own_groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: one tree
            tree, names = mounted, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            tree, names = mounted / controllers, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = tree / path.strip("/")
        # In a container, the path may be that of the host: then only the root is visible.
        for folder in (group, *group.parents):
            values = " ".join(_read(folder / name) for name in names).split()
            if len(values) == 2 and values[0].isdigit() and int(values[1]) > 0:
                yield int(values[0]) / int(values[1])
            if folder == tree:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system than Linux, or a group that cannot be seen from here
        return ""
