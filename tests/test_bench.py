"""The benchmarks run on quiet machines only, so rarely: that they can be collected, and what no import shows."""

import importlib.util
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("path", sorted(BENCH.glob("test_*.py")), ids=lambda path: path.stem)
def test_they_can_be_collected(path):
    assert any(name.startswith("test_") for name in vars(module(path)))


@pytest.mark.slow
def test_a_step_s_memory_is_measured():
    megabytes = module(BENCH / "test_memory.py").megabytes
    assert megabytes(20_000, "whole") > 2 * megabytes(20_000, "chunks") > 0
