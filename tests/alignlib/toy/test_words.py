"""What the toy world's languages share: words, and texts that are none of theirs."""

from random import Random

import pytest

from alignlib.toy.words import fill, foreign, vocabulary, words


def test_vocabulary_leaves_placeholders_out():
    assert vocabulary("Use a {tool}.", ("My {aspect2} is", "big")) == {"use", "a", "my", "is", "big"}


def test_words_are_runs_of_letters_in_lower_case():
    assert words("Don't, 2 Trees\n") == ["don", "t", "trees"]


@pytest.mark.parametrize("text, share", [("a tree", 0), ("a bush", 0.5), ("bush", 1), ("", 1), ("...", 1),
                                         ("a tree é", 1 / 3)])
def test_how_foreign_a_text_is(text, share):
    assert foreign(words(text), text, frozenset({"a", "tree"})) == pytest.approx(share)


def test_a_template_is_filled_with_the_facts():
    assert fill(Random(0), ("My {thing}.",), {"thing": "lamp", "who": "boss"}) == "My lamp."
