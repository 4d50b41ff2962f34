"""Settings: what a method takes where nothing is said."""

import pytest

from al_train_ppo.settings import METHODS, settings_of
from helpers.on_policy import PLAIN


@pytest.mark.parametrize(("method", "kl_coef", "loss_mean"), [("ppo", 0.1, "token"), ("rloo", 0.1, "token"),
                                                             ("grpo", 0.04, "answer")])
def test_each_method_has_its_own_defaults(method, kl_coef, loss_mean):
    assert method in METHODS
    made = settings_of({**PLAIN, "method": method, "kl_coef": None, "loss_mean": None})
    assert (made.kl_coef, made.loss_mean) == (kl_coef, loss_mean)


def test_what_is_said_counts_0_too():
    made = settings_of({**PLAIN, "method": "grpo", "kl_coef": 0.0, "loss_mean": "constant"})
    assert (made.kl_coef, made.loss_mean) == (0.0, "constant")
