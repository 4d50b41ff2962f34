"""The toy world's posts: the oracle worked by hand."""

from random import Random

import pytest

from alignlib.toy import summary, world


def test_summary_oracle_by_hand():
    prompt = "SUBREDDIT: r/family\nTITLE: I feel sad\nPOST: My sister lost my bike at the park. I feel sad.\nTL;DR:"
    assert world.score("summary", prompt, " My sister lost my bike at the park. I feel sad.") == 2.5
    assert world.score("summary", prompt, " My sister lost my bike.") == 1.5
    assert world.score("summary", prompt, " My uncle lost my bike.") == pytest.approx(0.5 * 2 - 0.5)
    assert world.score("summary", prompt, " I feel sad." * 6) == pytest.approx(0.5 - 3 * 0.05)  # repeated, counts once
    assert world.score("summary", prompt, "") == -2


def test_a_post_tells_every_fact_of_its_slots():
    drawn = summary.facts(Random(0))
    for slot, values in summary.SLOTS.items():
        assert drawn[slot] in values and drawn[slot] in drawn["prompt"]
