# Reddit posts and their summaries (TL;DR), for several experiments.

ifeq ($(scale),toy)
tldr.train := al-data toy --task summary --limit 4000
tldr.test := al-data toy --task summary --limit 200 --split test
# The posts' own summaries are mostly better than those that were compared: a small model learns to look facts up only
# where that pays.
tldr.teach := (al-data toy --task summary --limit 8000 --best-of 16 && al-data toy --task summary --limit 4000 --seed 1)
else
# SFT learns the posts' own summaries; people compared others.
tldr.train = al-data tldr-pref $(if $(DATA),--from $(call found,pairs.train),--split train)
tldr.test = al-data tldr-pref $(if $(DATA),--from $(call found,pairs.test),--split test)
tldr.teach := $(if $(DATA),,al-data tldr)
endif

# $(call TLDR,NAME): the experiment's data, and how the toy world's policy learns to sum up.
define TLDR
$(1).oracle := toy:summary
$(1).toy.sft := --lr 2e-3 --steps 2400
$(1).train = $$(tldr.train)
$(1).test = $$(tldr.test)
$(if $(tldr.teach),$(1).teach := $(tldr.teach))
endef
