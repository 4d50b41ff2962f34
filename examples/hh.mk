# Helpful and harmless dialogue (Anthropic HH), for several experiments.

PART ?= helpful-base
# With a real model: dialogues of which line and answers are short, so many of them.
hh.real.pairs := 1200
hh.real.held-out := 96
hh.short := length < 1000

# $(call hh-rows,train)
hh-rows = al-data hh $(if $(filter real,$(scale)),--chat) $(if $(DATA),--from $(call data-file,pairs.$(1)),--part $(PART) --split $(1))
# $(call hh-half,1): every other one of the pairs. What policies and their reward models learn is not what judges them.
hh-half = $(call hh-rows,train) | awk '$(hh.short) && n < $(hh.real.pairs) && n++ % 2 == $(1)'

# $(call HH,NAME): the experiment's data, and who judges.
define HH
$(1).oracle := toy:overall
$(1).paper.part := $(PART)
$(1).real.part := $(PART)
ifdef toy-world
$(1).train := al-data toy --task dialogue --limit $(call setting,$(1),records)
$(1).test := al-data toy --task dialogue --limit $(call setting,$(1),held-out) --split test
else ifeq ($(scale),real)
$(1).train = $$(call hh-half,0)
$(1).gold = $$(call hh-half,1)
$(1).test = $$(call hh-rows,test) | awk '$$(hh.short) && n++ < $$(hh.real.held-out)'
$(1).real.oracle = $$($(1).run)/gold $$(call common,$(1))
else
$(1).train = $$(call hh-rows,train)
$(1).test = $$(call hh-rows,test)
endif
endef
