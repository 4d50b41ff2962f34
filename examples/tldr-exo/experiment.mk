# Summaries of posts (TL;DR): people's comparisons, a reward model, EXO and DPO.
tldr-exo.oracle := toy:summary
tldr-exo.toy.sft := --lr 2e-3 --steps 900
tldr-exo.paper.spread := 0.025
ifeq ($(scale),toy)
tldr-exo.train := al-data toy --task summary --limit 4000
tldr-exo.test := al-data toy --task summary --limit 200 --split test
else
# SFT learns the posts' own summaries; people compared others.
ifeq ($(DATA),)
tldr-exo.teach := al-data tldr
endif
tldr-exo.train = al-data tldr-pref $(if $(DATA),--from $(call found,pairs.train),--split train)
tldr-exo.test = al-data tldr-pref $(if $(DATA),--from $(call found,pairs.test),--split test)
endif
$(eval $(call EXO,tldr-exo))
tldr-exo: ## EXO and DPO on summaries of posts
