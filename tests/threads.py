"""Which threads of the library are at work; idle ones wait for work, and soon end."""

from __future__ import annotations

import threading


def at_work() -> set[threading.Thread]:
    """Return the threads of stages that have not ended."""
    return {t for t in threading.enumerate() if t.name.startswith("rs_embed-")}


def passing() -> set[threading.Thread]:
    """Return the threads of the library but for those of forward passes, which stay for others."""
    ours = {thread for thread in threading.enumerate() if "rs_embed" in thread.name}
    return {thread for thread in ours if not thread.name.startswith("rs_embed lane")}
