"""What a MODEL's name stands for: folders, .gguf files, weights and what they began as."""

import pytest

from alignlib.model_names import Parts, is_here, is_path, parts, what_would_do


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "odd@name", "odd.gguf"):
        (tmp_path / folder).mkdir()
    for file in ("x.gguf", "model/x.gguf", "policy.pt", "model/pytorch_model.bin", "we@ird.pt", "notes.txt"):
        (tmp_path / file).touch()
    return tmp_path


@pytest.mark.parametrize(("name", "found"), [
    ("model", Parts("model")),
    ("odd@name", Parts("odd@name")),
    ("odd.gguf", Parts("odd.gguf")),
    ("gpt2", Parts("gpt2")),
    ("someone/model", Parts("someone/model")),
    ("notes.txt", Parts("notes.txt")),
    ("model/pytorch_model.bin", Parts("model", "model/pytorch_model.bin")),
    ("policy.pt", Parts(".", "policy.pt")),
    ("policy.pt@gpt2-large", Parts("gpt2-large", "policy.pt")),
    ("we@ird.pt@model", Parts("model", "we@ird.pt")),
    ("policy.pt@odd@name", Parts("odd@name", "policy.pt")),
    ("model@gpt2", Parts("gpt2", "model")),
    ("someone/weights@someone/base", Parts("someone/base", "someone/weights")),
    ("someone/model/x.gguf", Parts("someone/model", gguf="x.gguf")),
    ("model@", Parts("model@")),
])
def test_a_name_says_where_the_parts_are(here, name, found):
    assert parts(name) == found


def test_a_file_that_is_here_is_named_whole(here):
    """Transformers would else take the one of the same name where the command runs."""
    assert parts("model/x.gguf") == Parts("model", gguf=str(here / "model" / "x.gguf"))
    assert parts("x.gguf") == Parts(".", gguf=str(here / "x.gguf"))
    assert parts("model/missing.gguf").gguf == str(here / "model" / "missing.gguf")


@pytest.mark.parametrize(("name", "there"), [
    ("model", True), ("x.gguf", True), ("policy.pt", True), ("policy.pt@gpt2", True), ("missing.pt@gpt2", False),
    ("notes.txt", False), ("gpt-4", False), ("missing.gguf", False), ("", False),
])
def test_what_is_here_is_no_server_s_name(here, name, there):
    assert is_here(name) == there


def test_a_folder_without_a_configuration_says_what_would_do(here):
    assert what_would_do("model") == "; model/x.gguf would do"
    (here / "model" / "x.gguf").unlink()
    assert what_would_do("model") == "; for weights alone name their base: model/pytorch_model.bin@BASE"
    (here / "model" / "adapter_config.json").touch()  # weights that are added to others
    assert what_would_do("model") == "; one that a trainer or save_pretrained wrote would do, or a name on the Hub"
    (here / "model" / "step-8").mkdir()
    (here / "model" / "step-8" / "config.json").touch()
    assert what_would_do("model") == "; model/step-8 has one"
    assert what_would_do("odd@name").startswith("; one that")


def test_what_can_be_no_name_elsewhere_is_a_path():
    assert all(map(is_path, ("/a", "./a", "../a", "~/a")))
    assert not any(map(is_path, ("a", "a/b", "gpt-4o", ".a")))
