"""al-data shuffle: every order as likely as any other, the same whatever the memory, and nothing left on disk."""

import errno
import subprocess
import sys
from collections import Counter
from itertools import permutations
from random import Random

import click
import pytest

from al_data import shuffle
from al_data.shuffle import Order, Size
from helpers.anonymous import anonymous
from helpers.process import call, command, environment


def lines(count: int, width: int = 60) -> list[bytes]:
    return [b'{"n":%d,"x":"%s"}\n' % (i, b"x" * width) for i in range(count)]


def keyed(texts: list[bytes], seed: int = 0) -> list[tuple[int, bytes]]:
    keys = Random(seed)
    return [(keys.getrandbits(64), text) for text in texts]


def test_every_order_is_as_likely_as_any_other(monkeypatch):
    """Of four lines, in memory and through blocks of blocks: chi-square of 24 orders, 23 degrees of freedom."""
    monkeypatch.setattr(shuffle, "BITS", 1)
    for memory in (1 << 20, 100):
        counts = Counter(tuple(Order(keyed([b"a", b"b", b"c", b"d"], seed), memory, ".")) for seed in range(2400))
        assert set(counts) == set(permutations([b"a", b"b", b"c", b"d"]))
        assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7  # p = 0.001


def test_the_order_does_not_depend_on_the_memory(tmp_path):
    given = keyed(lines(3000))
    whole, narrow = list(Order(given, 1 << 30, str(tmp_path))), Order(given, 2000, str(tmp_path))
    assert len(narrow.blocks) == 64 and list(tmp_path.iterdir()) == []  # blocks have no name
    assert list(narrow) == whole and sorted(whole) == sorted(lines(3000)) and whole != lines(3000)
    assert narrow.count == 3000
    small = Order(given, 1 << 17, str(tmp_path))  # dealt out in the middle of the lines
    assert small.blocks and list(small) == whole and small.count == 3000


def test_lines_with_the_same_key_stay_as_they_came(tmp_path):
    """However many they are: keys that are all alike cannot be dealt out for ever."""
    given = [(7, text) for text in lines(500)]
    assert list(Order(given, 1000, str(tmp_path))) == lines(500)


def test_as_a_command(tmp_path):
    (tmp_path / "a").write_bytes(b"".join(lines(400)).removesuffix(b"\n"))
    done = call("al-data", "shuffle", "a", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0 and "al-data shuffle: 400 records" in done.stderr
    out = (tmp_path / "out").read_bytes()
    assert sorted(out.splitlines(keepends=True)) == sorted(lines(400))
    assert call("al-data", "shuffle", "--memory", "5M", cwd=tmp_path, stdin=b"".join(lines(400))).stdout == out.decode()
    assert call("al-data", "shuffle", "a", "--seed", 1, cwd=tmp_path).stdout != out.decode()
    assert call("al-data", "shuffle", "a", "-o", "a", cwd=tmp_path).returncode == 2
    (tmp_path / "bad").write_bytes(b'{"a":1}\nno\n')
    done = call("al-data", "shuffle", "a", "bad", "-o", "new", cwd=tmp_path)
    assert done.returncode == 65 and "bad:2: broken JSON" in done.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"a", "bad", "out"}


def test_sizes():
    size = Size()
    assert [size.convert(text, None, None) for text in ("1M", "1.5g", "20MB", "3000000")] == [
        10**6, 1_500_000_000, 20_000_000, 3_000_000]
    for text in ("", "M", "1T", "10K", "-1G", "inf", "nan", "1e999"):
        with pytest.raises(click.BadParameter):
            size.convert(text, None, None)


def test_a_full_disk_is_one_that_names_the_folder(tmp_path, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shuffle.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError) as caught:
        Order(keyed(lines(100)), 1000, str(tmp_path))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_more_than_memory_takes_no_more_memory(tmp_path):
    """24 MB through --memory 2M, by the kernel's count of anonymous memory at its peak."""
    (tmp_path / "a").write_bytes(b"".join(lines(24_000, 980)))
    peaks = {}
    for memory in ("2M", "100M"):
        process = subprocess.Popen([*command("al-data", "shuffle", tmp_path / "a", "--memory", memory)],
                                   env=environment(), stdout=subprocess.PIPE)
        most = 0.0
        while process.stdout.read(1 << 16):
            most = max(most, anonymous(process.pid))
        assert process.wait() == 0
        peaks[memory] = most
    assert peaks["100M"] > peaks["2M"] + 15, peaks


@pytest.mark.slow
def test_the_output_is_taken_before_anything_is_read(tmp_path):
    """Another run's is refused at once, though this input never ends, and nobody else may have it meanwhile."""
    out = tmp_path / "out"
    with subprocess.Popen(command("al-data", "shuffle", "-o", out), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, env=environment()) as first:
        first.stdin.write(lines(1)[0])
        first.stdin.flush()
        while not (tmp_path / "out.partial").exists():
            assert first.poll() is None
        second = call("al-data", "toy", "--limit", 2, "-o", out)
        assert second.returncode == 2 and f"{out}: another run is writing it" in second.stderr
        first.communicate()
    assert first.returncode == 0 and out.read_bytes() == lines(1)[0]
