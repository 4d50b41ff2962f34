# Helpful and harmless dialogue (Anthropic HH): SteerLM, a judge's attributes.
hh-steerlm.oracle := toy:overall
hh-steerlm.also := helpful harmless
hh-steerlm.mode := --mode steerlm
hh-steerlm.judged := --mode steerlm
hh-steerlm.judge := overall
hh-steerlm.paper.new-tokens := 256
hh-steerlm.paper.prompt := --max-prompt 512
hh-steerlm.paper.lengths := --max-length 800 --max-completion 257
# The data are hh-exo's.
PART ?= helpful-base
hh-steerlm.paper.part := $(PART)
hh-steerlm.train = $(hh-exo.train)
hh-steerlm.test = $(hh-exo.test)
$(eval $(call ALT,hh-steerlm))
hh-steerlm: ## SteerLM on helpful and harmless dialogue: a judge's attributes
