# Reddit posts and their summaries (TL;DR), for several experiments.

tldr.toy.taught := 8000
tldr.smoke.taught := 48
tldr.real.records := 400
tldr.real.held-out := 64

ifdef toy-world
tldr.train := al-data toy --task summary --limit $(call setting,tldr,records)
tldr.test := al-data toy --task summary --limit $(call setting,tldr,held-out) --split test
# The posts' own summaries are mostly better than those that were compared: a small model learns to look facts up only
# where that pays.
tldr.teach := (al-data toy --task summary --limit $(call setting,tldr,taught) --best-of 16 && al-data toy --task summary --limit $(call setting,tldr,records) --seed 1)
else ifeq ($(scale),real)
# Not Reddit's, but abstracts of papers, the short ones; the reward is the overlap with their summary by hand.
tldr.rows = al-data scitldr $(if $(DATA),--from $(call data-file,sft.$(1)),--split $(1)) | awk 'length < 1000 && n++ < $(2)'
tldr.train = $(call tldr.rows,train,$(call setting,tldr,records))
tldr.test = $(call tldr.rows,test,$(call setting,tldr,held-out))
tldr.teach =
else
# SFT learns the posts' own summaries; people compared others.
tldr.train = al-data tldr-pref $(if $(DATA),--from $(call data-file,pairs.train),--split train)
tldr.test = al-data tldr-pref $(if $(DATA),--from $(call data-file,pairs.test),--split test)
tldr.teach := $(if $(DATA),,al-data tldr)
endif

# $(call TLDR,NAME): the experiment's data, and how the toy world's policy learns to sum up.
define TLDR
$(1).oracle := toy:summary
$(1).real.oracle := py:examples/tldr-alt-rm/overlap.py:f1
# After 2400 steps it is up to rounding whether the policy can look facts up.
$(1).toy.sft := --lr 2e-3 --steps 4800
$(1).train = $$(tldr.train)
$(1).test = $$(tldr.test)
$(if $(tldr.teach),$(1).teach := $(tldr.teach))
endef
