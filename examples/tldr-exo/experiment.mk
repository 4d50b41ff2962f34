# Summaries of posts (TL;DR): people's comparisons, a reward model, EXO and DPO.
$(eval $(call TLDR,tldr-exo))
tldr-exo.paper.spread := 0.025
$(eval $(call EXO,tldr-exo))
tldr-exo: ## EXO and DPO on summaries of posts
