# The ARGS experiments: held-out answers by ways of decoding one SFT policy, with and without its reward model's guidance,
# and those of a policy that PPO trained with that reward model.

toy.weights := 0.25 0.5 1 2 4
smoke.weights := 1
data.weights := 0.5 1 2 4
real.weights := 0.5 1 2
paper.weights := 0.5 1 1.5 2

# The reward models beside `rm`, which knows whole texts alone: one that has ranked beginnings too, and two that are asked
# about all next tokens at once; each of the policy, and of one of half its layers, under half/.
kind.prefixes := --prefixes 4
kind.next-token = --loss next-token --beta $(call setting,$(1),beta-token)
kind.vocabulary := --head vocabulary
kinds := prefixes next-token vocabulary
# What the table compares beside the SFT policy and `rm`, where a scale does not say less.
guides := ppo $(kinds:%=rm-%) $(kinds:%=half/rm-%)
real.guides := rm-next-token
toy.beta-token := 0.2
data.beta-token := 0.1
real.beta-token := 0.1
paper.beta-token := 0.05
half-of = python3 -c 'import json, sys; config = json.load(open(sys.argv[1])); \
  print(config.get("num_hidden_layers", config.get("n_layer")) // 2)'

guides-of = $(or $(call setting,$(1),guides),$(guides))

# $(call ARGS,NAME): the experiment's targets. It needs what START needs (start.mk), and beside settings:
#   NAME.oracle              toy:NAME where there is one; NAME.real.oracle: what judges at that scale
define ARGS
$(call START,$(1))

# Held-out pairs of people, for the accuracy of who rewards and who judges.
$$($(1).run)/pairs.jsonl: $$($(1).run)/test.jsonl
	al-pref2rw $$< > $$@.part && mv $$@.part $$@

# PPO with the same reward model, as ARGS compares with.
$$($(1).run)/ppo/run.json: $$($(1).run)/train.jsonl $$($(1).run)/rm/run.json
	head -n $$(call setting,$(1),prompts) $$< > $$(@D).prompts
	$$(call on-policy,$(1),ppo,$$($(1).run)/rm) $$(@D).prompts -o $$(@D) >> $$(@D).log

$$($(1).run)/half/base/config.json: $$($(1).run)/sft/run.json
	al-data new-model $$(@D) --from $$($(1).run)/sft --layers "$$$$($(half-of) $$($(1).run)/sft/config.json)"

$$($(1).run)/half/sft/run.json: $$($(1).run)/train.jsonl $$($(1).run)/half/base/config.json
	al-sft $$($(1).run)/half/base $$< -o $$(@D) --resume --seed $(SEED) $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),sft) >> $$(@D).log

$(foreach kind,$(kinds),$(foreach place,$$($(1).run) $$($(1).run)/half,$(call KIND,$(1),$(place),$(kind))))

# One way after the other, whatever JOBS: their seconds are compared.
$$($(1).run)/report/table.md: $$($(1).run)/test.jsonl $$($(1).run)/rm/run.json $$(call oracle-file,$(1)) \
  $(patsubst %,$$($(1).run)/%/run.json,$(call guides-of,$(1))) $(if $(value $(1).gold),$$($(1).run)/pairs.jsonl)
	RUN=$$($(1).run) ORACLE='$$(call oracle,$(1))' MODELS='$(call guides-of,$(1))' COHERENCE='$(COHERENCE)' \
	  COMMON='$$(call setting,$(1),prompt) --max-new-tokens $$(call setting,$(1),new-tokens)' DTYPE=$(DTYPE) \
	  WEIGHTS='$$(call setting,$(1),weights)' STOP='$$(call setting,$(1),stop)' bash examples/decode.sh
endef

# $(call KIND,NAME,FOLDER,KIND): a reward model of the policy FOLDER/sft.
define KIND

$(2)/rm-$(3)/run.json: $$($(1).run)/train.jsonl $(2)/sft/run.json
	al-train-rm $(2)/sft $$< -o $$(@D) --resume --seed $(SEED) $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),rm) \
	  $$(call kind.$(3),$(1)) >> $$(@D).log

endef
