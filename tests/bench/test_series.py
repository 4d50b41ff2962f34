"""Twenty kills of each command, spread over what it writes: no byte differs."""

import pytest

from helpers.kills import SERIES, series

KILLS = 20


@pytest.mark.parametrize("name", SERIES)
def test_twenty_kills(name, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    moments = series(SERIES[name](folder, 10), KILLS, seed=sum(map(ord, name)))
    print(f"\n{name}: {KILLS} kills at {moments} moments, no byte differs")
