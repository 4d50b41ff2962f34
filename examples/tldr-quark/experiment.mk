# Summaries of posts (TL;DR): Quark, the ranks of rewards as new tokens.
tldr-quark.oracle := toy:summary
tldr-quark.mode := --mode quark --kl-coef 0.05 --entropy-coef 0.06
tldr-quark.toy.sft := --lr 2e-3 --steps 900
tldr-quark.toy.learn := $(toy.learn) --per-quantile 4
tldr-quark.paper.samples := 96
tldr-quark.paper.temperature := 0.9
tldr-quark.paper.new-tokens := 64
tldr-quark.paper.learn := $(paper.learn) --train-layers 0.3
# The data are tldr-exo's.
tldr-quark.train = $(tldr-exo.train)
tldr-quark.test = $(tldr-exo.test)
ifeq ($(scale)$(DATA),paper)
tldr-quark.teach := al-data tldr
endif
$(eval $(call ALT,tldr-quark))
tldr-quark: ## Quark on summaries of posts: the ranks of rewards as new tokens
