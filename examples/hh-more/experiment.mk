# Reward models of several preference domains (Zeng et al. 2023): of one domain each, of all of them on the same batches
# (MultiTask) and weighted (MORE); accuracy and calibration by domain; rejection sampling with each, and judged win rates.
#
#   make hh-more                                        the toy world, its oracles as domains, its judge beside it
#   make hh-more DATA='folder folder ...'               a domain a folder, each with its pairs.train.jsonl, pairs.test.jsonl
#   make hh-more DATA=... JUDGE=name BASE_URL=url       the same with win rates, by a judge (its key in OPENAI_API_KEY)
#   make hh-more SCALE=paper MODEL=name JUDGE=name      helpful, harmless, oasst1, webgpt, summarisation from the Hub
#
# SEED=1: SFT's and the reward models' order of the data and new weights.

# Pairs of a domain in a pass (resample) and in a step; prompts of the rejection sampling.
hh-more.toy.pairs := 1200
hh-more.toy.held-out := 500
hh-more.toy.sft := --lr 2e-3 --steps 400
hh-more.toy.rm := --lr 1e-3 --epochs 2
hh-more.toy.share := 8
hh-more.toy.prompts := 600
hh-more.toy.align := --lr 1e-3 --epochs 2

hh-more.smoke.pairs := 12
hh-more.smoke.share := 2

hh-more.data.pairs := 2000
hh-more.data.share := 12
hh-more.data.align := --lr 5e-4 --epochs 2

hh-more.paper.pairs := 40000
hh-more.paper.share := 16
hh-more.paper.prompts := 10000
hh-more.paper.align := --lr 1e-5 --batch-size 64

ifdef toy-world
hh-more.domains := helpful harmless polite concise
hh-more.pairs = (seed=0; for domain in $(hh-more.domains); do \
  al-data toy --by $$domain --seed $$seed --split $(1) --limit $(2) || exit 1; seed=$$((seed + 1)); done)
hh-more.train = $(call hh-more.pairs,train,$(call setting,hh-more,pairs))
hh-more.test = $(call hh-more.pairs,test,$(call setting,hh-more,held-out))
# The questions the judge is asked, and in the toy world which oracle answers.
hh-more.questions := general:overall helpful:helpful harmless:harmless
else
hh-more.questions := $(if $(JUDGE),helpful:$(JUDGE) harmless:$(JUDGE))
ifneq ($(DATA),)
hh-more.domains := $(notdir $(DATA:/=))
$(if $(filter $(words $(hh-more.domains)),$(words $(sort $(hh-more.domains)))),,\
  $(error DATA=$(DATA): two folders of one name, which is their domain's))
hh-more.file = $(or $(firstword $(wildcard $(1).jsonl $(1).jsonl.gz)),$(error there is no $(1).jsonl))
hh-more.pairs = ($(foreach folder,$(DATA:/=),al-data hh --from $(call hh-more.file,$(folder)/pairs.$(1)) \
  --domain $(notdir $(folder)) &&) true)
else
hh-more.domains := helpful harmless oasst1 webgpt summarisation
hh-more.pairs = (al-data hh --part helpful-base --split $(1) && al-data hh --part harmless-base --split $(1) && \
  al-data oasst1 --lang en --split $(1) && al-data webgpt --split $(1) && al-data tldr-pref --split $(1))
endif
hh-more.train = $(call hh-more.pairs,train)
hh-more.test = $(call hh-more.pairs,test)
endif
$(eval $(call START,hh-more))
hh-more: ## reward models of several domains: MORE, MultiTask, one a domain; rejection sampling

hh-more.all := multitask more
hh-more.models := $(hh-more.domains) $(hh-more.all)
hh-more.teach = al-train-rm $(hh-more.run)/sft $(1) -o $(@D) --resume --seed $(SEED) $(call common,hh-more) \
  $(call setting,hh-more,lengths) $(call setting,hh-more,rm)

# A reward model of one domain takes as many steps as those of all, its share of their batches; of a domain with fewer
# pairs, which those of all go through again, it takes fewer.
$(hh-more.domains:%=$(hh-more.run)/rm-%/run.json): $(hh-more.run)/rm-%/run.json: $(hh-more.run)/train.jsonl $(hh-more.run)/sft/run.json
	grep -F -m $(call setting,hh-more,pairs) '"domain":"$*"' $< > $(@D).jsonl
	$(call hh-more.teach,$(@D).jsonl) --batch-size $(call setting,hh-more,share) >> $(@D).log

$(hh-more.all:%=$(hh-more.run)/rm-%/run.json): $(hh-more.run)/rm-%/run.json: $(hh-more.run)/train.jsonl $(hh-more.run)/sft/run.json
	$(call hh-more.teach,$<) --more --resample $(call setting,hh-more,pairs) $(if $(filter multitask,$*),--no-reweight) \
	  --batch-size $(shell expr $(call setting,hh-more,share) \* $(words $(hh-more.domains))) >> $(@D).log

# Held-out pairs under every reward model.
$(hh-more.models:%=$(hh-more.run)/%.pairs.jsonl): $(hh-more.run)/%.pairs.jsonl: $(hh-more.run)/rm-%/run.json $(hh-more.run)/test.jsonl
	al-pref2rw $(lastword $^) | al-score $(<D) $(call common,hh-more) -o $@.part && mv $@.part $@

# Rejection sampling: of four samples the one that the reward model likes best, and SFT on those.
hh-more.draw = -t $(call setting,hh-more,temperature) -m $(call setting,hh-more,new-tokens) $(call common,hh-more)
$(hh-more.run)/samples.jsonl: $(hh-more.run)/train.jsonl $(hh-more.run)/sft/run.json
	al-data hh --from $< --shuffle --only prompts --limit $(call setting,hh-more,prompts) > $@.prompts
	al-sample $(hh-more.run)/sft $@.prompts -n 4 $(hh-more.draw) $(into)

$(hh-more.models:%=$(hh-more.run)/%.best.jsonl): $(hh-more.run)/%.best.jsonl: $(hh-more.run)/samples.jsonl $(hh-more.run)/rm-%/run.json
	al-score $(hh-more.run)/rm-$* $(call common,hh-more) $< | al-pref2rw --to sft > $@.part && mv $@.part $@

$(hh-more.models:%=$(hh-more.run)/policy-%/run.json): $(hh-more.run)/policy-%/run.json: $(hh-more.run)/%.best.jsonl
	al-sft $(hh-more.run)/sft $< -o $(@D) --resume $(call common,hh-more) $(call setting,hh-more,lengths) \
	  $(call setting,hh-more,align) >> $(@D).log

# What the policies answer to held-out prompts, together, so that a judge and its cache are asked in one run a question.
$(hh-more.run)/test.prompts.jsonl: $(hh-more.run)/test.jsonl
	al-data hh --from $< --shuffle --only prompts $(once) | awk 'NR <= 200' > $@.part && mv $@.part $@

$(hh-more.run)/sft.answers.jsonl: $(hh-more.run)/test.prompts.jsonl $(hh-more.run)/sft/run.json
	al-sample $(hh-more.run)/sft $< $(hh-more.draw) $(into)

$(hh-more.models:%=$(hh-more.run)/%.answers.jsonl): $(hh-more.run)/%.answers.jsonl: $(hh-more.run)/policy-%/run.json $(hh-more.run)/test.prompts.jsonl
	al-sample $(<D) $(lastword $^) $(hh-more.draw) $(into)

$(hh-more.run)/answers.jsonl: $(hh-more.models:%=$(hh-more.run)/%.answers.jsonl)
	for file in $^; do name=$${file##*/}; sed "s/^{/{\"policy\":\"$${name%.answers.jsonl}\",/" $$file; done > $@.part && mv $@.part $@

# The toy world's judge runs beside the command that asks it.
hh-more.asks = $(with-judge) al-label-ai
define ASK
$(hh-more.run)/judged.$(1).jsonl: $(hh-more.run)/answers.jsonl $(hh-more.run)/sft.answers.jsonl
	$(hh-more.asks) --question $(1) --judge $(2) $$< --against $(hh-more.run)/sft.answers.jsonl $$(into)
endef
$(foreach pair,$(hh-more.questions),$(eval $(call ASK,$(firstword $(subst :, ,$(pair))),$(or $(JUDGE),$(lastword $(subst :, ,$(pair)))))))

hh-more.judged := $(foreach pair,$(hh-more.questions),$(firstword $(subst :, ,$(pair))))
$(hh-more.run)/report/table.md: $(hh-more.models:%=$(hh-more.run)/%.pairs.jsonl) $(hh-more.judged:%=$(hh-more.run)/judged.%.jsonl)
	RUN=$(hh-more.run) MODELS='$(hh-more.models)' QUESTIONS='$(hh-more.judged)' bash examples/hh-more/report.sh
