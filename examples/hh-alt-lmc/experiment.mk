# Helpful and harmless dialogue (Anthropic HH): ALT, a judge's categories.
hh-alt-lmc.oracle := toy:overall
hh-alt-lmc.also := helpful harmless
hh-alt-lmc.mode := --mode lmc
hh-alt-lmc.judged := --mode lmc
hh-alt-lmc.judge := overall
hh-alt-lmc.paper.new-tokens := 256
hh-alt-lmc.paper.prompt := --max-prompt 512
hh-alt-lmc.paper.lengths := --max-length 800 --max-completion 257
# The data are hh-exo's.
PART ?= helpful-base
hh-alt-lmc.paper.part := $(PART)
hh-alt-lmc.train = $(hh-exo.train)
hh-alt-lmc.test = $(hh-exo.test)
$(eval $(call ALT,hh-alt-lmc))
hh-alt-lmc: ## ALT on helpful and harmless dialogue: a judge's categories
