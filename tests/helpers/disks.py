"""Disks without space: one of our own, small, where we may mount it; a limit on files' sizes, anywhere."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import forks


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """This process, and those that it starts, may write no file longer than `size` bytes: EFBIG, "file too large"."""
    forks.folder()  # which writes, too, where it is not there yet
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class SmallDisk:
    """A file system of so many kilobytes at `at`."""

    def __init__(self, at: Path, kilobytes: int):
        self.at = at
        at.mkdir()
        self.mount(kilobytes)

    def mount(self, kilobytes: int, *options: str) -> None:
        said = ",".join([f"size={kilobytes}k", *options])
        subprocess.run(["mount", "-t", "tmpfs", "-o", said, "tmpfs", self.at], check=True, capture_output=True)

    def grow(self, kilobytes: int) -> None:
        self.mount(kilobytes, "remount")

    def names(self) -> list[str]:
        return sorted(path.name for path in self.at.iterdir())


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """A disk in `folder`; the test is skipped where none may be mounted."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk; the tests with a limit on files stand in for it")
    try:
        disk = SmallDisk(folder / "disk", kilobytes)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no small disk can be mounted: {error.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk.at], check=True)
