"""Settings of a search, and files of them: what is wrong with a line is named."""

import pytest

from helpers.guided import refused


@pytest.mark.parametrize("line, said", [
    ('{"wieght": 1}', "wieght: no such setting; there are method, weight, topk"),
    ('{"weight": "1"}', 'weight: expected a number, got "1"'),
    ('{"topk": 0}', "topk: 0, all tokens, goes with method next-token, not with greedy"),
    ('{"topk": 2.5}', "topk: expected a whole number of at least 1, got 2.5"),
    ('{"topk": true}', "topk: expected a whole number of at least 1, got a boolean"),
    ('{"temperature": -1}', "temperature: expected a number of at least 0, got -1"),
    ('{"method": "beam"}', 'method: expected one of greedy, stochastic, next-token, best-of-n, segment, got "beam"'),
    ('{"segment": 4}', "segment: does nothing for method greedy"),
    ('{"method": "greedy"}', "the same as an earlier line"),
    ("[1]", "expected an object, got an array"),
    ("{", "broken JSON"),
])
def test_a_bad_line_of_a_grid_is_named(tmp_path, line, said):
    (tmp_path / "grid").write_text('{"weight": 1}\n' + line + "\n")
    assert f"{tmp_path}/grid:2: {said}" in refused("--grid", tmp_path / "grid", code=65)


def test_an_empty_grid_is_refused(tmp_path):
    (tmp_path / "grid").write_text("\n")
    assert "grid: no settings" in refused("--grid", tmp_path / "grid", code=65)
