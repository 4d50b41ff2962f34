# Summaries of posts (TL;DR): Quark, the ranks of rewards as new tokens.
$(eval $(call TLDR,tldr-quark))
tldr-quark.mode := --mode quark --kl-coef 0.05 --entropy-coef 0.06
tldr-quark.on-policy := yes
tldr-quark.toy.a-rollout := 64
tldr-quark.toy.learn := $(toy.learn) --per-quantile 4
tldr-quark.paper.samples := 96
tldr-quark.paper.temperature := 0.9
tldr-quark.paper.new-tokens := 64
tldr-quark.paper.learn := $(paper.learn) --train-layers 0.3
$(eval $(call ALT,tldr-quark))
tldr-quark: ## Quark on summaries of posts: the ranks of rewards as new tokens
