# Helpful and harmless dialogue: EXO and DPO in rounds, each learning from answers of the policy before it, beside
# on-policy training and exo-rw on the SFT policy's answers alone; all see as many answers and rewards.
#
#   make hh-online ROUNDS=3

ROUNDS ?= $(if $(filter smoke,$(scale)),2,3)

$(eval $(call HH,hh-online))
hh-online.methods := exo-rw online-exo-rw online-dpo-rw ppo rloo grpo
hh-online.costs := yes
# Of a round's policy: what it is trained with. All rounds together see the prompts once.
hh-online.toy.round := --schedule constant
hh-online.smoke.round := --steps 2

# $(call round,METHOD,2): the folder of the second round; the policy before it.
round = $(hh-online.run)/$(1)/round-$(2)
before-round = $(if $(filter 1,$(2)),$(hh-online.run)/sft,$(call round,$(1),$(shell expr $(2) - 1)))

# $(call ROUND,METHOD,2): the targets of the second round of online-LOSS.
define ROUND

$(call round,$(1),$(2)).samples.jsonl: $(hh-online.run)/samples.jsonl $(call before-round,$(1),$(2))/run.json
	@mkdir -p $$(@D)
	awk 'NR % $(ROUNDS) == $(2) % $(ROUNDS)' $$<.prompts > $$@.prompts
	bash examples/timed.sh $$(@D)/seconds al-sample $(call before-round,$(1),$(2)) $$@.prompts -n 4 --ids --seed $(2) \
	  -t $$(call setting,hh-online,temperature) -m $$(call setting,hh-online,new-tokens) $$(call common,hh-online) $$(into)

$(call round,$(1),$(2)).rw.jsonl: $(call round,$(1),$(2)).samples.jsonl $(if $(learned-rewards),$(hh-online.run)/rm/run.json)
	bash examples/timed.sh $$(@D)/seconds $$(call rewards,hh-online) $$< $$(into)

$(call round,$(1),$(2))/run.json: $(call round,$(1),$(2)).rw.jsonl
	bash examples/timed.sh $$(dir $$(@D))seconds $$(call learns-pairs,hh-online,$(patsubst online-%,%,$(1))) \
	  $(call before-round,$(1),$(2)) $$< --ref $(hh-online.run)/sft $$(call setting,hh-online,round) -o $$(@D) >> $$(@D).log
endef

$(eval $(call EXO,hh-online))
$(foreach method,$(filter online-%,$(hh-online.methods)),$(foreach i,$(shell seq $(ROUNDS)),$(eval $(call ROUND,$(method),$(i)))))
hh-online: ## EXO and DPO in rounds, PPO, RLOO and GRPO, with as many answers each
