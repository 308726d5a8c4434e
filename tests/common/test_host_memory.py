"""A program keeps the memory that it frees; each case runs in a process of its own, since the setting lasts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from fastreid_clip3d.common import host_memory

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc")

PROGRAM = """
import resource
from fastreid_clip3d.common.host_memory import keep_memory
{before}
print(keep_memory() if {keep} else None)
pages_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = bytearray(b"x") * (64 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages_before)
"""
LIMIT = """
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
"""


def run(keep: bool, before: str = "", **variables: str) -> tuple[str, int]:
    """What keep_memory answers, and the page faults of ten times 64 MiB."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(host_memory._CHOSEN_BY_USER)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keep=keep, before=before)],
        env={**plain, "FASTREID_CLIP3D_PARENT": "", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    answer, faults = result.stdout.split()
    return answer, int(faults)


@on_glibc
def test_freed_memory_is_not_asked_for_again() -> None:
    _, given_back = run(keep=False)
    answer, kept = run(keep=True)
    assert answer == "True"
    one_block = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert given_back > 9 * one_block
    assert kept < 2 * one_block


@on_glibc
def test_a_limit_on_addresses_costs_the_huge_pages_alone() -> None:
    answer, kept = run(keep=True, before=LIMIT)
    assert answer == "True"
    assert kept < 2 * (64 << 20) // os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "LD_PRELOAD"])
def test_the_environment_of_the_user_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "glibc.malloc.arena_max=4")
    assert not host_memory.keep_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda *_: pytest.fail("the C library was loaded"))
    monkeypatch.setattr(host_memory.platform, "libc_ver", lambda: ("", ""))
    assert not host_memory.keep_memory()
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert not host_memory.keep_memory()
