"""The toy world's film reviews: the oracle worked by hand."""

from random import Random

import pytest

from alignlib.toy import review, world


def test_sentiment_by_hand():
    prompt = "Last Sunday I watched a western called Silent River and"
    assert world.score("sentiment", prompt, " the plot was superb.") == 1.5
    assert world.score("sentiment", prompt, " the plot was not superb.") == -0.75
    assert world.score("sentiment", prompt, " the plot was dull and good.") == pytest.approx(-0.1)
    assert world.score("sentiment", prompt, " superb" * 9) == 1.5
    assert world.score("sentiment", prompt, "") == -4


def test_an_opinion_counts_once_and_all_of_them_are_bounded():
    prompt = review.facts(Random(0))["prompt"]
    assert review.sentiment(prompt, " superb brilliant gripping great lovely moving good") == 6
    assert review.sentiment(prompt, " good superb good superb") == pytest.approx(0.7 + 1.5)
