# The EXO experiments have one shape: data -> SFT -> reward model -> samples, scored -> four policies -> held-out figures.
#
#   make hh-exo                                      the toy world, minutes on two cores
#   make hh-exo DATA=folder [MODEL=folder]           your own pairs.train.jsonl and pairs.test.jsonl (.gz too)
#   make hh-exo SCALE=paper MODEL=name [DATA=folder] the paper's settings; the data from the Hub unless DATA is given
#
# A file is made once: interrupted, make goes on where it was. JOBS commands run at a time.

SCALE ?= toy
JOBS ?= $(shell nproc)
METHODS := exo-pref exo-rw dpo-pref dpo-rw

# What rewards the samples that -rw learns from: the toy world's oracle, where there is one, or the learned model.
REWARDS ?= $(if $(filter toy,$(scale)),oracle,learned)

# Settings by scale: toy, data (your files, a small model) and paper (Ji et al. 2024, their section 5 and scripts).
# An experiment's own NAME.SCALE.X wins over SCALE.X.
ifeq ($(filter toy paper,$(SCALE)),)
$(error SCALE=$(SCALE): it is toy or paper)
endif
ifneq ($(DATA),)
$(if $(wildcard $(DATA)/.),,$(error DATA=$(DATA): no such folder))
endif
scale := $(if $(filter toy,$(SCALE)),$(if $(DATA),data,toy),$(SCALE))

# The toy world's tables were made in fp32; --dtype auto depends on the machine.
DTYPE ?= $(if $(filter toy,$(scale)),fp32,auto)

toy.size := 1m
toy.prompt := --max-prompt 192
toy.lengths := --max-length 256 --max-completion 64
toy.sft := --lr 2e-3 --steps 600
toy.rm := --lr 5e-4 --epochs 1
toy.prompts := 1500
toy.new-tokens := 64
toy.temperature := 1.0
toy.beta := 0.5
toy.align := --lr 3e-4 --batch-size 32
toy.spread := 0.34
toy.draws := 2

data.size := 2m
data.prompt := --max-prompt 256
data.lengths := --max-length 384 --max-completion 128
data.sft := --lr 1e-3 --epochs 2
data.rm := --lr 3e-4 --epochs 1
data.prompts := 600
data.new-tokens := 64
data.temperature := 1.0
data.beta := 0.5
data.align := --lr 3e-4 --batch-size 32
data.spread := 0.5
data.draws := 1

paper.size := 300m
paper.prompt := --max-prompt 312
paper.lengths := --max-length 512 --max-completion 200
paper.sft := --lr 1e-5 --batch-size 64
paper.rm := --lr 1e-5 --batch-size 64
paper.prompts := 1000000
paper.new-tokens := 200
paper.temperature := 0.8
paper.beta := 0.5
paper.align := --lr 1e-6 --batch-size 64
paper.spread := 0.05
paper.draws := 1

# $(call of,NAME,X): the setting X of the experiment NAME.
of = $(or $($(1).$(scale).$(2)),$($(scale).$(2)))
# $(call common,NAME): what every command that runs a model is told.
common = --dtype $(DTYPE) $(call of,$(1),prompt)
# $(call found,pairs.train): the file of that name in DATA, packed or not.
found = $(or $(firstword $(wildcard $(DATA)/$(1).jsonl $(DATA)/$(1).jsonl.gz)),$(error $(DATA) has no $(1).jsonl))

# Filters write beside and rename, so that a killed one resumes and a made file is a whole one.
into = -o $@.part --resume && mv $@.part $@

empty :=
space := $(empty) $(empty)

# $(call EXO,NAME): the experiment's targets. It needs, beside settings:
#   NAME.train, NAME.test    commands that write records {prompt, chosen, rejected} to stdout
#   NAME.oracle              toy:NAME where there is one
#   NAME.reward              how al-score reads its reward model: flags
#   NAME.labels              (a classifier as reward model) a command that writes {text, label}
#   NAME.teach               (where SFT has data of its own) a command that writes {prompt, chosen}
define EXO
.PHONY: $(1)
$(1): $$(SETUP)
	@$$(MAKE) --no-print-directory -j$$(JOBS) $$($(1).run)/report/table.md
	@echo "$$($(1).run)/report:" && ls $$($(1).run)/report && cat $$($(1).run)/report/table.md

$(1).run := runs/$(subst $(space),-,$(strip $(1) $(filter paper,$(SCALE)) $(notdir $(MODEL:/=)) $(notdir $(DATA:/=)) \
  $(if $(DATA),,$($(1).$(scale).part)) $(foreach name,REWARDS DTYPE,$(if $(filter-out file,$(origin $(name))),$($(name))))))
$(1).start := $(if $(MODEL),,$$($(1).run)/base/config.json)
$(1).model := $(or $(MODEL),$$($(1).run)/base)

$(foreach part,train test labels teach,$$($(1).run)/$(part).jsonl): $$($(1).run)/%.jsonl: | $$(SETUP)
	@mkdir -p $$(@D)
	$$($(1).$$*) > $$@.part && mv $$@.part $$@

$$($(1).run)/base/config.json: $$($(1).run)/train.jsonl
	al-data new-model $$(@D) $$< --size $$(call of,$(1),size)

$$($(1).run)/sft/run.json: $$($(1).run)/$(if $($(1).teach),teach,train).jsonl $$($(1).start)
	al-sft $$($(1).model) $$< -o $$(@D) --resume $$(call common,$(1)) $$(call of,$(1),lengths) $$(call of,$(1),sft) >> $$(@D).log

$$($(1).run)/rm/run.json: $$($(1).run)/$(if $($(1).labels),labels,train).jsonl $$($(1).run)/sft/run.json
	al-train-rm $$($(1).run)/sft $$< -o $$(@D) --resume $$(call common,$(1)) $$(call of,$(1),lengths) $$(call of,$(1),rm) \
	  $(if $($(1).labels),--loss classify) >> $$(@D).log

# For -rw: the SFT policy's own answers, rewarded.
$$($(1).run)/samples.jsonl: $$($(1).run)/train.jsonl $$($(1).run)/sft/run.json
	head -n $$(call of,$(1),prompts) $$< > $$@.prompts
	al-sample $$($(1).run)/sft $$@.prompts -n 4 --ids -t $$(call of,$(1),temperature) \
	  -m $$(call of,$(1),new-tokens) $$(call common,$(1)) $$(into)

$$($(1).run)/rw.jsonl: $$($(1).run)/samples.jsonl $(if $(filter oracle,$(REWARDS)),,$$($(1).run)/rm/run.json)
	al-score $(if $(filter oracle,$(REWARDS)),$$($(1).oracle),$$($(1).run)/rm $$($(1).reward) $$(call common,$(1))) \
	  $$< $$(into)

# For -pref: people's preferences on as many prompts; with a classifier as reward model, its own among the samples.
$$($(1).run)/pref.jsonl: $$($(1).run)/$(if $($(1).labels),rw,train).jsonl
	head -n $$(call of,$(1),prompts) $$< | $(if $($(1).labels),al-pref2rw --to pref --ties skip |) al-pref2rw \
	  > $$@.part && mv $$@.part $$@

$(foreach method,$(METHODS),$$($(1).run)/$(method)/run.json): $$($(1).run)/%/run.json: $$($(1).run)/pref.jsonl $$($(1).run)/rw.jsonl
	al-train-exo $$($(1).run)/sft $$($(1).run)/$$(lastword $$(subst -, ,$$*)).jsonl -o $$(@D) --resume --loss $$* \
	  --beta-pi $$(call of,$(1),beta) --beta-r $$(call of,$(1),beta) --temperature $$(call of,$(1),temperature) \
	  $$(call common,$(1)) $$(call of,$(1),lengths) $$(call of,$(1),align) --save-every $$(call of,$(1),spread) --keep 0 >> $$(@D).log

# What the chosen answers are worth, to win against.
$$($(1).run)/chosen.learned.jsonl: $$($(1).run)/test.jsonl $$($(1).run)/rm/run.json
	al-pref2rw $(if $($(1).labels),--to chosen) $$< | al-score $$($(1).run)/rm $$($(1).reward) $$(call common,$(1)) -o $$@.part && mv $$@.part $$@

$$($(1).run)/chosen.oracle.jsonl: $$($(1).run)/test.jsonl
	al-pref2rw $$< | al-score $$($(1).oracle) -o $$@.part && mv $$@.part $$@

# What the policies say to held-out prompts, and what that is worth: a line a figure, for every checkpoint.
$(foreach method,sft $(METHODS),$$($(1).run)/$(method).rows): $$($(1).run)/%.rows: $$($(1).run)/%/run.json \
    $$($(1).run)/chosen.learned.jsonl $(if $(filter toy,$(scale)),$$($(1).run)/chosen.oracle.jsonl)
	RUN=$$($(1).run) ORACLE=$(if $(filter toy,$(scale)),$($(1).oracle)) REWARD='$$($(1).reward)' \
	  COMMON='$$(call common,$(1))' TEMPERATURE=$$(call of,$(1),temperature) NEW_TOKENS=$$(call of,$(1),new-tokens) DRAWS=$$(call of,$(1),draws) \
	  bash examples/figures.sh $$*

$$($(1).run)/report/table.md: $(foreach method,sft $(METHODS),$$($(1).run)/$(method).rows)
	RUN=$$($(1).run) ORACLE=$(if $(filter toy,$(scale)),$($(1).oracle)) METHODS='sft $(METHODS)' \
	  PAIRS=$(if $($(1).labels),,yes) bash examples/report.sh
endef
