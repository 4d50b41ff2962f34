# How every experiment starts: data -> SFT -> reward model.
#
#   make hh-exo                                      the toy world, minutes on two cores
#   make hh-exo DATA=folder [MODEL=folder]           your own pairs.train.jsonl and pairs.test.jsonl (.gz too)
#   make hh-exo SCALE=real MODEL=smollm2 [DATA=folder]
#                                                    a real chat model and people's data, on two cores
#   make hh-exo SCALE=paper MODEL=name [DATA=folder] the paper's settings; the data from the Hub unless DATA is given
#   make hh-exo SEED=1                               again from SFT on, by other draws; held-out answers are drawn alike
#   make hh-exo SCALE=smoke                          whether it runs: the toy world, tens of records, a few steps
#
# A file is made once: interrupted, make goes on where it was. JOBS commands run at a time. What is made is in RUNS.

SCALE ?= toy
# A real model keeps all cores busy by itself.
JOBS ?= $(if $(filter real,$(SCALE)),1,$(shell nproc))
SEED ?= 0
real-experiments := hh-exo hh-args tldr-alt-rm
RUNS ?= runs

# Settings by scale: smoke, toy, data (your files, a small model), real (a chat model, by adapters), paper (Ji et al. 2024,
# their section 5 and scripts).
# An experiment's own NAME.SCALE.X wins over SCALE.X; what smoke leaves open is toy's.
ifeq ($(filter smoke toy real paper,$(SCALE)),)
$(error SCALE=$(SCALE): it is smoke, toy, real or paper)
endif
ifeq ($(SCALE)$(MODEL),real)
$(error SCALE=real wants MODEL=folder, a chat model; MODEL=smollm2 makes one)
endif
ifneq ($(and $(filter smoke,$(SCALE)),$(DATA)),)
$(error SCALE=smoke is of the toy world: it takes no DATA)
endif
ifneq ($(DATA),)
$(if $(wildcard $(DATA)/.),,$(error DATA=$(DATA): no such folder))
endif
scale := $(if $(filter toy,$(SCALE)),$(if $(DATA),data,toy),$(SCALE))
toy-world := $(filter smoke toy,$(scale))

# The toy world's tables were made in fp32; --dtype auto depends on the machine.
DTYPE ?= $(if $(toy-world),fp32,auto)

# Of training (classes of texts: labelled) and held out, as many records.
toy.records := 4000
toy.labelled := 4000
toy.held-out := 200
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

smoke.records := 48
smoke.labelled := 48
smoke.held-out := 8
smoke.sft := --lr 2e-3 --steps 4
smoke.rm := --lr 5e-4 --steps 2
smoke.prompts := 16
smoke.new-tokens := 16
smoke.align := --lr 3e-4 --batch-size 8 --steps 2
smoke.spread := 2
smoke.draws := 1

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

real.prompt := --max-prompt 288
real.lengths := --max-length 384 --max-completion 96 --pack-tokens 2048
real.sft := --lora 16 --lr 2e-4 --batch-size 16 --save-every 10
real.rm := --lora 16 --lr 3e-4 --batch-size 16 --save-every 10
real.prompts := 256
real.new-tokens := 48
real.temperature := 1.0
real.beta := 0.1
real.beta-r := 0.5
real.align := --lora 16 --lr 5e-4 --batch-size 16
real.spread := 0.34
real.draws := 1

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

# $(call setting,NAME,X): the setting X of the experiment NAME.
setting = $(or $($(1).$(scale).$(2)),$($(scale).$(2)),$(if $(filter smoke,$(scale)),$(or $($(1).toy.$(2)),$(toy.$(2)))))
# $(call common,NAME): what every command that runs a model is told.
common = --dtype $(DTYPE) $(call setting,$(1),prompt)
# $(call data-file,pairs.train): the file of that name in DATA, packed or not.
data-file = $(or $(firstword $(wildcard $(DATA)/$(1).jsonl $(DATA)/$(1).jsonl.gz)),$(error $(DATA) has no $(1).jsonl))

# $(call oracle,NAME): what al-score is told to ask for the rewards that judge: the toy world's program, or what an
# experiment says for the scale. $(call oracle-file,NAME): what has to be there for it.
oracle = $(or $($(1).$(scale).oracle),$(if $(toy-world),$($(1).oracle)))
oracle-file = $(addsuffix /run.json,$(filter $(RUNS)/%,$(firstword $(call oracle,$(1)))))

# The chat model of that name, as `al-data model` makes it.
smollm2/config.json: | $(SETUP)
	al-data model smollm2 smollm2

# What runs a command that asks a judge: the toy world's runs beside it, yours may be at BASE_URL.
own-judge := $(if $(JUDGE),,$(toy-world))
with-judge = $(if $(own-judge),bash examples/judge.sh,$(if $(BASE_URL),OPENAI_BASE_URL=$(BASE_URL)))

# Filters write beside and rename, so that a killed one resumes and a made file is a whole one.
into = -o $@.part --resume && mv $@.part $@

# For the end of a command: a prompt once, where answers to compare are joined on it, or prompts must not be shared.
once := | awk 'match($$0, /"prompt":"([^"\\]|\\.)*"/) && !seen[substr($$0, RSTART, RLENGTH)]++'

empty :=
space := $(empty) $(empty)

# $(call START,NAME): the data, the SFT policy and the reward model of an experiment, in $(NAME.run). It needs:
#   NAME.train, NAME.test    commands that write records {prompt, chosen, rejected} to stdout
#   NAME.labels              (a classifier as reward model) a command that writes {text, label}
#   NAME.gold                (where a model judges) a command that writes pairs for it, of which no other sees any
#   NAME.teach               (where SFT has data of its own) a command that writes {prompt, chosen}
#   NAME.words               (where a new model's tokenizer should know more) files of {text}
define START
.PHONY: $(1)
$(1): $$(SETUP)
	$(if $(filter real,$(SCALE)),$(if $(filter $(1),$(real-experiments)),,$$(error SCALE=real is of $(real-experiments))))@$$(MAKE) --no-print-directory -j$$(JOBS) $$($(1).run)/report/table.md
	@echo "$$($(1).run)/report:" && ls $$($(1).run)/report && cat $$($(1).run)/report/table.md

$(1).run := $(RUNS)/$(subst $(space),-,$(strip $(filter smoke,$(SCALE)) $(1) $(filter real paper,$(SCALE)) $(notdir $(MODEL:/=)) $(notdir $(DATA:/=)) \
  $(if $(DATA),,$($(1).$(scale).part)) $(foreach name,REWARDS DTYPE AGAINST SEED,$(if $(filter-out file,$(origin $(name))),$($(name))))))
$(1).start := $(if $(MODEL),$(filter smollm2/config.json,$(MODEL)/config.json),$$($(1).run)/base/config.json)
$(1).model := $(or $(MODEL),$$($(1).run)/base)

$(foreach part,train test labels teach gold,$$($(1).run)/$(part).jsonl): $$($(1).run)/%.jsonl: | $$(SETUP)
	@mkdir -p $$(@D)
	$$($(1).$$*) > $$@.part && mv $$@.part $$@

$$($(1).run)/base/config.json: $$($(1).run)/train.jsonl $$($(1).words)
	al-data new-model $$(@D) $$^ --size $$(call setting,$(1),size)

$$($(1).run)/sft/run.json: $$($(1).run)/$(if $(value $(1).teach),teach,train).jsonl $$($(1).start)
	al-sft $$($(1).model) $$< -o $$(@D) --resume --seed $(SEED) $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),sft) >> $$(@D).log

$$($(1).run)/rm/run.json: $$($(1).run)/$(if $(value $(1).labels),labels,train).jsonl $$($(1).run)/sft/run.json
	al-train-rm $$($(1).run)/sft $$< -o $$(@D) --resume --seed $(SEED) $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),rm) \
	  $(if $(value $(1).labels),--loss classify) >> $$(@D).log

# A reward model that judges, from the model that the policy began as.
$$($(1).run)/gold/run.json: $$($(1).run)/gold.jsonl $$($(1).start)
	al-train-rm $$($(1).model) $$< -o $$(@D) --resume $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),rm) >> $$(@D).log
endef
