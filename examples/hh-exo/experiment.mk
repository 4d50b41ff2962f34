# Helpful and harmless dialogue (Anthropic HH): people's preferences, a reward model, EXO and DPO.
hh-exo.oracle := toy:overall
hh-exo.methods := $(METHODS) ppo
ifdef toy-world
hh-exo.train := al-data toy --task dialogue --limit $(call setting,hh-exo,records)
hh-exo.test := al-data toy --task dialogue --limit $(call setting,hh-exo,held-out) --split test
else
PART ?= helpful-base
hh-exo.paper.part := $(PART)
hh-exo.train = al-data hh $(if $(DATA),--from $(call data-file,pairs.train),--part $(PART) --split train)
hh-exo.test = al-data hh $(if $(DATA),--from $(call data-file,pairs.test),--part $(PART) --split test)
endif
$(eval $(call EXO,hh-exo))
hh-exo: ## EXO and DPO on helpful and harmless dialogue
