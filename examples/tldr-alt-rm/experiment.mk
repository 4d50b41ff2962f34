# Summaries of posts (TL;DR): ALT, the ranks of rewards as words.
$(eval $(call TLDR,tldr-alt-rm))
tldr-alt-rm.mode := --mode rm --kl-coef 0.05 --entropy-coef 0.06
tldr-alt-rm.on-policy := yes
tldr-alt-rm.toy.a-rollout := 64
tldr-alt-rm.toy.learn := $(toy.learn) --per-quantile 4
tldr-alt-rm.real.a-rollout := 8
tldr-alt-rm.real.new-tokens := 40
# What so small a model draws at 1 is worth half of what it says greedily; and a nat is dear where rewards differ by tenths.
tldr-alt-rm.real.temperature := 0.7
tldr-alt-rm.real.on-policy := $(subst --kl-coef 0.05,--kl-coef 0.005,$(real.on-policy))
tldr-alt-rm.real.learn := $(real.learn) --per-quantile 1
tldr-alt-rm.paper.samples := 96
tldr-alt-rm.paper.temperature := 0.9
tldr-alt-rm.paper.new-tokens := 64
tldr-alt-rm.paper.learn := $(paper.learn) --train-layers 0.3
$(eval $(call ALT,tldr-alt-rm))
tldr-alt-rm: ## ALT on summaries of posts: the ranks of rewards as words
