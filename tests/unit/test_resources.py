from __future__ import annotations

import os
from pathlib import Path

import pytest

from djasgi.supervisor import resources
from djasgi.supervisor.resources import MIB, Readings, read, worker_count


@pytest.mark.parametrize(
    ("readings", "number", "line"),
    [
        (Readings(8), 8, "8 workers = 8 CPUs"),
        (Readings(1), 1, "1 worker = 1 CPU"),
        (Readings(8, quota=2.0), 2, "2 workers = min(8 CPUs, 2 CPUs of quota)"),
        (Readings(8, quota=1.5), 2, "2 workers = min(8 CPUs, 1.5 CPUs of quota)"),
        (Readings(8, quota=0.25), 1, "1 worker = min(8 CPUs, 0.25 CPUs of quota)"),
        (
            Readings(8, quota=3.0, memory=300 * MIB),
            2,
            "2 workers = min(8 CPUs, 3 CPUs of quota, 300 MiB of memory / 128 MiB)",
        ),
        (
            Readings(2, memory=64 * MIB),
            1,
            "1 worker = min(2 CPUs, 64 MiB of memory / 128 MiB)",
        ),
        (Readings(4096), 512, "512 workers = 4096 CPUs"),
    ],
)
def test_the_least_of_what_may_be_used_counts_and_the_line_says_so(
    readings: Readings, number: int, line: str
) -> None:
    assert worker_count(readings) == (number, line)


def test_without_readings_the_system_is_read() -> None:
    number, line = worker_count()

    assert 1 <= number <= (os.cpu_count() or 1)
    assert line.startswith(f"{number} worker")


def test_cpus_are_those_of_the_affinity_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    assert read(Path("/nonexistent")) == Readings(3)

    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert read(Path("/nonexistent")) == Readings(1)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /proc rw - proc proc rw\n"
)


def limits(root: Path) -> tuple[float | None, int | None]:
    readings = read(root)
    return readings.quota, readings.memory


def test_version_2_the_tightest_limit_of_all_ancestors_counts(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/shop.service\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/system.slice/shop.service/cpu.max": "max 100000\n",
            "sys/fs/cgroup/system.slice/shop.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/system.slice/memory.max": "536870912\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
            "sys/fs/cgroup/other.slice/memory.max": "1024\n",
        },
    )

    assert limits(tmp_path) == (1.5, 512 * MIB)


def test_version_2_in_a_container_the_mount_is_the_limit(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": "268435456\n",
        },
    )

    assert limits(tmp_path) == (0.5, 256 * MIB)


def test_a_path_outside_of_the_mount_reads_the_mount_itself(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../other\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": "268435456\n",
            "sys/fs/memory.max": "1024\n",
        },
    )

    assert limits(tmp_path) == (None, 256 * MIB)


def test_version_1_paths_are_relative_to_the_root_of_the_mount(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab/in\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/cpu/in/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/in/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
        },
    )

    assert limits(tmp_path) == (2.0, 128 * MIB)


def test_version_1_writes_no_limit_as_a_huge_number(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/ab\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )

    assert limits(tmp_path) == (None, None)


def test_what_cannot_be_read_is_no_limit(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\nnonsense\n",
            "proc/self/mountinfo": V2_MOUNT + "nonsense\n\n",
            "sys/fs/cgroup/cpu.max": "many few\n",
            "sys/fs/cgroup/memory.max/is-a-directory": "",
        },
    )

    assert limits(tmp_path) == (None, None)


def test_the_options_allow_no_more_workers_than_are_ever_computed() -> None:
    from djasgi.options import OPTIONS

    assert getattr(OPTIONS["workers"].kind, "maximum", None) == resources.MOST_WORKERS
