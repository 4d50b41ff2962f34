"""Examples that lie in files: what is written is what is read, a few bytes a token, and a cut file is known."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from alignlib.models.example import Example
from alignlib.training.examples import GIVEN, Examples, Writer, checksum, is_whole, naming
from helpers import tiny
from helpers.process import environment

SOME = [
    Example([1, 2, 3], [[4, 5], []], {"rewards": [1.5, -2.0], "domain": [1, 1]}),
    Example([], [[6], [7, 8, 9]], {"rewards": [0.25, 0.0], "domain": [0, 0]}),
    Example([2**31 - 1], [[0]], {"rewards": [3.0], "domain": [2]}, bare=[9, 9]),
    Example([1], [[2, 3, 4, 5]], {"rewards": [0.1], "domain": [3]}, given=frozenset({1, 3})),
]


def test_what_is_written_is_what_is_read(tmp_path):
    examples = tiny.stored(SOME)
    assert list(examples) == SOME and len(examples) == 4
    assert examples[-1] == SOME[-1] and examples[1:3] == SOME[1:3]
    assert [example.length for example in examples] == [5, 4, 2, 5]
    assert [type(value) for value in examples[0].values["domain"]] == [int, int]  # as torch will have them
    assert examples[3].given == {1, 3} and examples[2].bare == [9, 9]
    with pytest.raises(IndexError):
        examples[4]


def test_a_part_has_its_own_numbers(tmp_path):
    writer = Writer(tmp_path)
    for example in SOME:
        writer.add(example)
    layout = writer.close()
    first, rest = Examples(tmp_path, layout, 0, 1), Examples(tmp_path, layout, 1, 4)
    assert list(first) == SOME[:1] and list(rest) == SOME[1:]
    assert rest.lengths.tolist() == [1, 3, 1, 4] and rest.rows(1) == slice(2, 3)
    assert rest.first_values("domain").tolist() == [0, 2, 3]
    assert list(Examples(tmp_path, layout, 4, 4)) == []


def test_numbers_may_be_added_and_put_in_others_places():
    examples = tiny.stored(SOME)
    examples.values["domain"] = examples.values["domain"] + 10
    examples.values["ref_logps"] = np.arange(6.0)
    assert examples[1].values == {"rewards": [0.25, 0.0], "domain": [10, 10], "ref_logps": [2.0, 3.0]}


def test_no_example_at_all():
    assert list(tiny.stored([])) == []


def test_examples_have_the_same_values(tmp_path):
    for odd in ({}, {"rewards": [1.0]}, {"rewards": [1.0], "domain": [1], "label": [1]}):
        writer = Writer(tmp_path)
        writer.add(SOME[0])
        with pytest.raises((ValueError, KeyError)):
            writer.add(Example([1], [[2]], odd))


def test_at_most_five_bytes_a_token(tmp_path):
    writer = Writer(tmp_path)
    for i in range(50):
        writer.add(tiny.example(40, 160, seed=i))
    writer.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 5 * 50 * 200


def test_cut_and_changed_files_are_known(tmp_path):
    writer = Writer(tmp_path)
    writer.add(SOME[0])
    layout = writer.close()
    assert is_whole(tmp_path, layout)
    for name in ("ids", "numbers"):
        before = (tmp_path / name).read_bytes()
        for changed in (before[:-4], before + b"\0\0\0\0", bytes([before[0] ^ 1]) + before[1:], b""):
            (tmp_path / name).write_bytes(changed)
            assert not is_whole(tmp_path, layout)
        (tmp_path / name).unlink()
        assert checksum(tmp_path / name) is None and not is_whole(tmp_path, layout)
        (tmp_path / name).write_bytes(before)
    assert is_whole(tmp_path, layout)


def test_a_full_disk_names_the_folder_around_them(tmp_path):
    with pytest.raises(OSError) as caught, naming(tmp_path / "ids"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)


def test_ids_are_below_the_mark_of_those_that_are_given():
    assert np.dtype("I").itemsize == 4 and GIVEN == 2**31


# What a process keeps of SFT data, by the kernel's count: less than a byte of anonymous memory a token.
READS = """
import re, sys
from pathlib import Path
import al_sft
from alignlib.training.batches import Batches
from alignlib.training.session import Session

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

class Done(Exception): ...

def fit(session, model):
    tokens = sum(example.length for example in session.examples)
    batches = Batches(session.objective.order(session.examples, 32), session.recipe)
    batches.at(0)
    print(anonymous(), tokens)
    sys.stdout.flush()
    raise Done

Session.fit = fit
al_sft.main(sys.argv[1:], prog_name="al-sft")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_anonymous_memory_grows_by_less_than_a_byte_a_token(tmp_path):
    from helpers.anonymous import write_texts
    from helpers.commands import folders

    figures = []
    for records in (3000, 12000):
        texts = write_texts(tmp_path / f"{records}.jsonl", records, words=100)  # cut to the context, 160 tokens
        done = subprocess.run([sys.executable, "-c", READS, folders().policy, texts, "-o", tmp_path / f"{records}"],
                              env=environment(), capture_output=True, text=True)
        figures.append(tuple(map(int, done.stdout.split())))
    (before, some), (after, more) = figures
    assert more - some > 1_400_000 and after - before < more - some, figures
