"""README.md says what the code says."""

import re
from pathlib import Path

import pytest

import readme

ROOT = Path(__file__).resolve().parent.parent


def test_generated_parts_are_up_to_date():
    text = readme.README.read_text()
    assert readme.filled(text) == text, "run `make docs`"


def test_a_missing_part_is_named():
    with pytest.raises(ValueError, match="<!-- fields -->"):
        readme.filled("# nothing here")


def test_every_file_it_points_to_is_there():
    text = readme.README.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_it_names_is_there():
    makefiles = "\n".join(path.read_text() for path in [ROOT / "Makefile", *ROOT.glob("examples/*/experiment.mk")])
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", readme.README.read_text()))
    assert named
    assert [name for name in named if not re.search(rf"^{name}:", makefiles, re.MULTILINE)] == []
