# AI feedback against better teachers (Sharma et al. 2024): SFT on a share of the prompts with a teacher's answers; on the
# others the policy's own samples, compared by a judge, and DPO. Is that more than SFT on the teacher's answers to all?
#
#   make rlaif                                        the toy world, its judge beside it
#   make rlaif AGAINST=teacher                        a sample against the teacher's answer, instead of two samples
#   make rlaif DATA=folder MODEL=folder JUDGE=name BASE_URL=url     your own data and judge (its key in OPENAI_API_KEY)
#   make rlaif SCALE=paper MODEL=name JUDGE=name      ShareGPT's answers of ChatGPT and GPT-4, AlpacaEval's prompts

SHARES ?= $(if $(filter smoke,$(scale)),50,10 30 60)
AGAINST ?= samples
ifeq ($(filter samples teacher,$(AGAINST)),)
$(error AGAINST=$(AGAINST): it is samples or teacher)
endif

rlaif.toy.teachers := weak strong
rlaif.toy.held-out := 400
rlaif.toy.prompts := 1500
rlaif.toy.top-p := 0.9
rlaif.toy.pretrain := --lr 2e-3 --steps 300
# So small a model says what its teacher says after ten times through, at this rate.
rlaif.toy.sft := --lr 2e-3
rlaif.toy.epochs := 10
rlaif.toy.align := --lr 2e-4 --batch-size 32
rlaif.toy.beta := 0.2

rlaif.smoke.pretrain := $(smoke.sft)

rlaif.data.teachers := chosen
rlaif.data.top-p := 0.9
rlaif.data.sft := --lr 5e-4
rlaif.data.epochs := 3
rlaif.data.beta := 0.2

rlaif.paper.teachers := chatgpt gpt4
rlaif.paper.prompt := --max-prompt 256 --keep-prompt start
rlaif.paper.lengths := --max-length 512
rlaif.paper.new-tokens := 256
rlaif.paper.temperature := 1.0
rlaif.paper.top-p := 0.9
rlaif.paper.epochs := 3
rlaif.paper.sft := --loss sequence --optimizer rmsprop --lr 1e-6 --schedule constant --warmup 150
rlaif.paper.align := --optimizer rmsprop --lr 1e-7 --schedule constant --warmup 150
rlaif.paper.beta := 0.05

# On a tenth of the prompts three times as often, as the study does.
rlaif.epochs = $(shell expr $(call setting,rlaif,epochs) $(if $(filter 10,$(1)),\* 3))

# What a teacher says; train is what a new model's tokenizer is made of, and what it is pretrained on.
ifdef toy-world
rlaif.oracle := toy:overall
rlaif.teacher.weak := al-data toy --limit $(call setting,rlaif,prompts)
rlaif.teacher.strong := al-data toy --limit $(call setting,rlaif,prompts) --best-of 8
rlaif.train := al-data toy --limit $(call setting,rlaif,records) --seed 1 --best-of 1
rlaif.test := al-data toy --limit $(call setting,rlaif,held-out) --split test $(once)
else
rlaif.teacher.chosen = al-data hh --from $(call data-file,pairs.train)
# Longer questions the study kept from its judge.
rlaif.short := --max-chars 8000 --max-words 2000
rlaif.teacher.chatgpt := al-data sharegpt $(rlaif.short)
rlaif.teacher.gpt4 := al-data sharegpt --teacher gpt4 $(rlaif.short)
rlaif.train = $(rlaif.teacher.$(firstword $(call setting,rlaif,teachers)))
rlaif.test = $(if $(DATA),al-data hh --from $(call data-file,pairs.test),al-data alpaca-eval) $(once)
endif

$(eval $(call START,rlaif))
rlaif: ## AI feedback by a judge, against SFT on better answers

# A new model of the toy world must learn its language first.
rlaif.from := $(if $(MODEL)$(DATA),$(rlaif.model),$(rlaif.run)/pretrained)
rlaif.begin := $(if $(MODEL)$(DATA),$(rlaif.start),$(rlaif.run)/pretrained/run.json)
$(rlaif.run)/pretrained/run.json: $(rlaif.run)/train.jsonl $(rlaif.start)
	al-sft $(rlaif.model) $< -o $(@D) --resume $(call common,rlaif) $(call setting,rlaif,lengths) $(call setting,rlaif,pretrain) >> $(@D).log

$(foreach teacher,$(call setting,rlaif,teachers),$(rlaif.run)/$(teacher).jsonl): $(rlaif.run)/%.jsonl: | $(SETUP)
	@mkdir -p $(@D)
	$(rlaif.teacher.$*) $(once) > $@.part && mv $@.part $@

# The toy world's judge runs beside the command that asks it.
rlaif.asks = $(with-judge) \
  al-label-ai --judge $(or $(JUDGE),$(if $(toy-world),overall,$(error JUDGE=name: who compares)))
rlaif.draw = -t $(call setting,rlaif,temperature) --top-p $(call setting,rlaif,top-p) -m $(call setting,rlaif,new-tokens) $(call common,rlaif)

# $(call SHARE,weak,10): SFT on the first tenth of the weak teacher's answers; feedback on samples of the rest; DPO.
define SHARE
$(rlaif.run)/$(1)-$(2)-sft/run.json: $(rlaif.run)/$(1).jsonl $(rlaif.begin)
	lines=$$$$(wc -l < $$<) && head -n $$$$((lines * $(2) / 100)) $$< > $$(@D).jsonl
	al-sft $$(rlaif.from) $$(@D).jsonl -o $$(@D) --resume --epochs $$(call rlaif.epochs,$(2)) $$(call common,rlaif) \
	  $$(call setting,rlaif,lengths) $$(call setting,rlaif,sft) >> $$(@D).log

$(rlaif.run)/$(1)-$(2)-samples.jsonl: $(rlaif.run)/$(1)-$(2)-sft/run.json
	lines=$$$$(wc -l < $(rlaif.run)/$(1).jsonl) && \
	  tail -n +$$$$((lines * $(2) / 100 + 1)) $(rlaif.run)/$(1).jsonl > $$@.prompts
	al-sample $$(<D) $$@.prompts -n $(if $(filter teacher,$(AGAINST)),1,2) $$(rlaif.draw) $$(into)

$(rlaif.run)/$(1)-$(2)-pairs.jsonl: $(rlaif.run)/$(1)-$(2)-samples.jsonl
	$$(rlaif.asks) --one-order --ties drop $$< $(if $(filter teacher,$(AGAINST)),--against $$<.prompts) $$(into)

$(rlaif.run)/$(1)-$(2)-ai/run.json: $(rlaif.run)/$(1)-$(2)-pairs.jsonl
	al-train-exo $(rlaif.run)/$(1)-$(2)-sft $$< -o $$(@D) --resume --loss dpo-pref --beta-pi $$(call setting,rlaif,beta) \
	  $$(call common,rlaif) $$(call setting,rlaif,lengths) $$(call setting,rlaif,align) >> $$(@D).log
endef
$(foreach teacher,$(call setting,rlaif,teachers),$(foreach share,$(SHARES) 100,$(eval $(call SHARE,$(teacher),$(share)))))

rlaif.policies := $(foreach teacher,$(call setting,rlaif,teachers),$(foreach share,$(SHARES),$(teacher)-$(share)-sft \
  $(teacher)-$(share)-ai) $(teacher)-100-sft)

# What every policy says to held-out prompts; all are compared with one reference in one run, and models are loaded once.
$(foreach policy,$(rlaif.policies),$(rlaif.run)/$(policy).answers.jsonl): $(rlaif.run)/%.answers.jsonl: $(rlaif.run)/%/run.json $(rlaif.run)/test.jsonl
	al-sample $(<D) $(lastword $^) $(rlaif.draw) $(into)

$(rlaif.run)/answers.jsonl: $(foreach policy,$(rlaif.policies),$(rlaif.run)/$(policy).answers.jsonl)
	for file in $^; do policy=$${file##*/}; sed "s/^{/{\"policy\":\"$${policy%.answers.jsonl}\",/" $$file; done > $@.part && mv $@.part $@

$(rlaif.run)/judged.jsonl: $(rlaif.run)/answers.jsonl
	$(rlaif.asks) $< --against $(rlaif.run)/test.jsonl $(into)

$(rlaif.run)/report/table.md: $(rlaif.run)/judged.jsonl
	RUN=$(rlaif.run) ORACLE=$(rlaif.oracle) POLICIES='$(rlaif.policies)' bash examples/rlaif/report.sh
