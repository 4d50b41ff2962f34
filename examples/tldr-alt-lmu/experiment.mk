# Summaries of posts (TL;DR): ALT, a judge's own words about each.
$(eval $(call TLDR,tldr-alt-lmu))
tldr-alt-lmu.mode := --mode lmu --kl-coef 0.05 --entropy-coef 0.06
tldr-alt-lmu.judged := --mode lmu --question summary
tldr-alt-lmu.judge := summary
tldr-alt-lmu.under := exemplars
tldr-alt-lmu.paper.temperature := 0.9
tldr-alt-lmu.paper.new-tokens := 64
tldr-alt-lmu.paper.learn := $(paper.learn) --train-layers 0.3
ifdef toy-world
tldr-alt-lmu.feedbacks := A excellent answer.|A good answer.|A mediocre answer.|A bad answer.
endif
$(eval $(call ALT,tldr-alt-lmu))
tldr-alt-lmu: ## ALT on summaries of posts: a judge's own words
