"""The names of classes: the modes' own, those that are given, and as many of five as there are quantiles."""

import pytest

from al_train_alt.pool import Selection
from al_train_alt.tags import CONDITIONS, MODES, TAGS, names, spread


def test_of_five_tags_as_many_as_there_are_quantiles():
    """The best and the worst among them, the others evenly between."""
    best, good, fair, bad, worst = TAGS["feedback"]
    assert names("rm", (), 5) == (best, good, fair, bad, worst)
    assert names("rm", (), 4) == (best, good, bad, worst)
    assert names("rm", (), 3) == (best, fair, worst)
    assert names("rm", (), 2) == (best, worst)
    assert names("rm", ("toxicity",), 4) == tuple(TAGS["toxicity"][i] for i in (0, 1, 3, 4))
    assert Selection("rm", quantiles=4).names == (best, good, bad, worst)  # which is no error any more


@pytest.mark.parametrize("count", range(2, 9))
def test_tags_spread_evenly(count):
    chosen = spread(tuple("abcdefgh"), count)
    assert len(set(chosen)) == count and (chosen[0], chosen[-1]) == ("a", "h") and list(chosen) == sorted(chosen)


def test_tags_that_are_given_stay_as_they_are():
    assert names("rm", ("a", "b", "c"), 2) == ("a", "b", "c")  # which the Selection refuses
    assert names("rm", (), 7) == TAGS["feedback"]
    assert names("lmc", ("only",), 5) == ("only",)


def test_other_modes_have_no_quantiles():
    assert names("lmc", (), 2) == TAGS["categories"] and names("steerlm", (), 2) == TAGS["attributes"]
    assert names("lmu", (), 5) == ()
    assert names("quark", (), 3) == ("_QUANTILE_TOKEN_0_", "_QUANTILE_TOKEN_1_", "_QUANTILE_TOKEN_2_")
    assert CONDITIONS.keys() == set(MODES)
