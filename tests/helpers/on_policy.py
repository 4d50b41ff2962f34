"""Settings of al-train-ppo for its tests."""

from al_train_ppo.settings import Settings

PLAIN = dict(method="grpo", number=2, prompts=2, passes=1, max_new_tokens=10, temperature=0.7, stop=(), kl_coef=0.3,
             kl_target=None, clip_ratio=0.2, clip_value=0.2, clip_reward=None, gamma=1.0, smoothing=0.95, whiten=False,
             scaled=True, loss_mean="answer", missing_end=0.0, ptx_coef=1.0)


def settings(**changes) -> Settings:
    return Settings(**{**PLAIN, **changes})
