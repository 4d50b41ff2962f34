"""Where a path leads to: through links, to what is not there yet, to what is open already."""

import os

from alignlib.records import links


def test_links_are_followed_to_what_is_not_there_yet(tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "a").symlink_to("far/b")
    (tmp_path / "far" / "b").symlink_to("c")
    assert links.place(tmp_path / "a") == str(tmp_path / "far" / "c")
    monkeypatch.chdir(tmp_path)
    assert links.place("a") == str(tmp_path / "far" / "c") and links.place(".") == str(tmp_path)
    (tmp_path / "round").symlink_to("round")
    assert links.place("round") == str(tmp_path / "round")


def test_what_this_process_has_open_is_known(tmp_path):
    reader, writer = os.pipe()
    assert links.descriptor(f"/dev/fd/{writer}") == links.descriptor(f"/proc/self/fd/{writer}") == writer
    (tmp_path / "link").symlink_to("/dev/stdout")
    assert links.descriptor("/dev/stdout") == links.descriptor(str(tmp_path / "link")) == 1
    assert links.descriptor(str(tmp_path / "file")) is None
    os.close(reader), os.close(writer)


def test_only_files_of_their_own_are_regular(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    assert [links.regular(str(tmp_path / name)) for name in ("file", "new", "pipe")] == [True, True, False]
    assert not links.regular("/dev/null")
    with open(tmp_path / "file", "ab") as handle:  # the shell's > file, as /dev/stdout has it
        assert not links.regular(f"/dev/fd/{handle.fileno()}")
