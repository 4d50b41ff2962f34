"""What a run would cost, beforehand."""

import json

import pytest

from helpers.commands import lines
from helpers.faulty import Server
from helpers.judging import pairs, right
from helpers.process import call


@pytest.mark.slow
def test_a_dry_run_says_what_it_would_cost_and_asks_nothing(tmp_path):
    (tmp_path / "in").write_bytes(lines(*pairs(5), *pairs(2)))
    args = ("al-label-ai", tmp_path / "in", "--judge", "overall", "-o", tmp_path / "out", "--price-in", 2,
            "--price-out", 10)
    with Server(right) as server:
        done = call(*args, "--base-url", server.url, "--dry-run")
        forecast = json.loads(done.stdout)
        assert done.returncode == 0 and server.calls == [] and not (tmp_path / "out").exists()
        assert (forecast["calls"], forecast["cached"], forecast["tokens"]) == (10, 4, 40)
        assert forecast["price"] == pytest.approx((2 * forecast["prompt_tokens"] + 10 * 40) / 1e6)
        assert call(*args, "--base-url", server.url).returncode == 0
        questions_ = [request["messages"] for _, _, request in server.calls]
        assert forecast["first"] in questions_ and len(questions_) == 10
        bytes_ = sum(len(messages[0]["content"].encode()) for messages in questions_)
        assert forecast["prompt_tokens"] == pytest.approx(bytes_ / 4, rel=0.05)
        again = json.loads(call(*args, "--base-url", server.url, "--dry-run").stdout)
    assert (again["calls"], again["cached"], again["price"]) == (0, 14, 0) and len(server.calls) == 10
