"""CPU quotas, read from made-up trees of ``/proc`` and ``/sys``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rexport.device._cores import cpu_quota, throttling_quota, usable_cores

if TYPE_CHECKING:
    from pathlib import Path

_V2, _V1 = "0::/pod/me\n", "9:memory:/\n4:cpu,cpuacct:/pod/me\n0::/\n"


def _tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    below = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **below}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _old(group: str, quota: int, *, period: int = 100000) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        (_V2, {"pod/me/cpu.max": "150000 100000\n"}, 1.5),
        (_V2, {"pod/me/cpu.max": "max 100000\n"}, None),
        (_V2, {"pod/me/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3.0),
        (_V2, {"pod/me/cpu.max": "400000 100000\n", "pod/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/docker/as-the-host-sees-it\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/../outside\n", {"cpu.max": "200000 100000\n", "outside/cpu.max": "1 100000\n"}, 2.0),
        (_V1, _old("cpu,cpuacct/pod/me", 50000), 0.5),
        (_V1, _old("cpu/pod", 250000) | _old("cpu/pod/me", 300000), 2.5),
        (_V1, _old("cpu/pod/me", -1), None),
        (_V1, _old("cpu", 70000, period=0), None),
        (_V2, {"pod/me/cpu.max": "nonsense\n"}, None),
        ("", {"cpu.max": "200000 100000\n"}, None),
    ],
)
def test_the_smallest_quota_counts(tmp_path: Path, groups: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(_tree(tmp_path, groups, files)) == quota


def test_without_proc_there_is_none(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [("20000", 1), ("150000", 2), ("300000", 3), ("900000", 4), ("max", 4)])
def test_cores_are_those_of_the_affinity_up_to_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    tree = _tree(tmp_path, _V2, {"pod/me/cpu.max": f"{quota} 100000\n"})
    assert usable_cores(tree) == cores
    assert (throttling_quota(tree) is not None) == (quota not in ("900000", "max"))
    assert usable_cores(tmp_path / "elsewhere") == 4
