"""How many cores are used, and that forward passes side by side change no result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rs_embed import get_embeddings_batch
from rs_embed.errors import SettingsError
from rs_embed.models.scalemae.encoder import NativeEncoder, images_per_pass
from rs_embed.models.side_by_side import side_by_side, usable_threads
from rs_embed.parallel.cores import cores
from tests.conftest import SMALL, small_network

AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/jobs/17\n", {"jobs/cpu.max": "100000 100000\n", "jobs/17/cpu.max": "max 100000"}, 1),
        ("0::/of/the/host\n", {"cpu.max": "100000 100000\n"}, 1),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "25000\n",
             "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "3:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("", {}, None),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_bound_the_cores(
    tmp_path: Path, groups: str, files: dict[str, str], quota: int | None
) -> None:
    listed, mounted = tmp_path / "cgroup", tmp_path / "fs"
    listed.write_text(groups)
    for name, content in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(content)
    assert cores(listed, mounted) == min(AFFINITY, quota or AFFINITY)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let PyTorch use two threads here, as it would with OMP_NUM_THREADS=2."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("side", "count"), [(64, 20), (64, 3), (224, 3), (320, 1)])
def test_tokens_do_not_depend_on_threads(two_threads: None, side: int, count: int) -> None:
    network = small_network(replace(SMALL, patch_size=8))
    encoder = NativeEncoder(network, side, True, False, None, dict)
    pixels = np.random.default_rng(0).normal(size=(count, 3, side, side)).astype(np.float32)
    gsds = [float(2 + number) for number in range(count)]
    together = encoder.encode(pixels, gsds)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one_core = encoder.encode(pixels, gsds)
    with torch.inference_mode():
        cls, patches = encoder.network(torch.from_numpy(pixels), torch.tensor(gsds), normed=True)
    for found in (together, one_core):
        assert found.cls is not None
        assert found.patches is not None
        np.testing.assert_allclose(found.cls, cls.numpy(), rtol=0, atol=1e-6 * cls.abs().max())
        np.testing.assert_allclose(found.patches, patches.numpy(), rtol=0, atol=1e-5)


def test_passes_run_side_by_side_with_their_share_of_threads(two_threads: None) -> None:
    meeting = threading.Barrier(2, timeout=30)  # passes if both run at the same time

    def threads(_: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    assert side_by_side(threads, [0, 1]) == [1, 1]
    assert side_by_side(lambda _: torch.get_num_threads(), [0]) == [2]
    assert torch.get_num_threads() == 2
    started: list[int] = []
    later = threading.Thread(target=lambda: started.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert started == [2]  # threads of others keep theirs


def test_an_error_is_raised_after_the_other_passes_have_ended(two_threads: None) -> None:
    begun = threading.Event()
    ended: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            assert begun.wait(30)
            raise ValueError("broken")
        begun.set()
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(ValueError, match="broken"):
        side_by_side(work, [0, 1])
    assert ended == [1]


def test_a_forked_process_has_passes_of_its_own(two_threads: None) -> None:
    assert side_by_side(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        os._exit(0 if side_by_side(abs, [-3, -4]) == [3, 4] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "2,0"])
def test_invalid_numbers_of_threads_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    message = f"got OMP_NUM_THREADS='{value}', expected a whole number of at least 1"
    with pytest.raises(SettingsError, match=message):
        get_embeddings_batch("scalemae", spatials=[(8, 50)], buffer_m=320, backend="sample")


def test_more_threads_than_cores_are_used_only_if_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(cores() + 3)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert usable_threads() == cores()
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores() + 3))
        assert usable_threads() == cores() + 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("rows", "images"), [(8, 8), (14, 2), (16, 2), (28, 1), (80, 1), (1, 8)])
def test_images_of_a_pass_divide_batches_evenly(rows: int, images: int) -> None:
    assert images_per_pass(rows, rows) == images


def test_interrupted_passes_end_before_the_process_does(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import _thread, threading, torch\n"
        "from rs_embed.models.side_by_side import side_by_side\n"
        "torch.set_num_threads(2)\n"
        "both_begun = threading.Barrier(3, timeout=60)\n"
        "def interrupt():\n"
        "    both_begun.wait()\n"
        "    _thread.interrupt_main()\n"
        "threading.Thread(target=interrupt).start()\n"
        "a, running = torch.ones(1000, 1000), set()\n"
        "def work(number):\n"
        "    running.add(number)\n"
        "    if number < 2:\n"
        "        both_begun.wait()\n"
        "    made = [a @ a for _ in range(8)]\n"
        "    running.remove(number)\n"
        "    return made\n"
        "try:\n"
        "    side_by_side(work, range(40))\n"
        "finally:\n"
        "    print('running:', len(running))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (130, -2), done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.stdout == "running: 0\n"
