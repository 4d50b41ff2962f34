# Helpful and harmless dialogue (Anthropic HH): decoding under a reward model's guidance (ARGS) beside other ways.
hh-args.oracle := toy:overall
hh-args.data.stop := Human:
hh-args.paper.stop := Human:
hh-args.paper.new-tokens := 128
ifdef toy-world
hh-args.train := al-data toy --task dialogue --limit $(call setting,hh-args,records)
hh-args.test := al-data toy --task dialogue --limit $(call setting,hh-args,held-out) --split test
else
PART ?= helpful-base
hh-args.paper.part := $(PART)
hh-args.train = al-data hh $(if $(DATA),--from $(call data-file,pairs.train),--part $(PART) --split train)
hh-args.test = al-data hh $(if $(DATA),--from $(call data-file,pairs.test),--part $(PART) --split test)
endif
$(eval $(call ARGS,hh-args))
hh-args: ## ways of decoding: greedy, sampled, best of n, under a reward model's guidance
