# The EXO experiments: samples of the SFT policy, scored, and preferences -> four policies -> held-out figures.

METHODS := exo-pref exo-rw dpo-pref dpo-rw

# What rewards the samples that are learned from: the toy world's oracle, where there is one, or the learned model.
REWARDS ?= $(if $(toy-world),oracle,learned)
learned-rewards = $(filter-out oracle,$(REWARDS))

# $(call methods,NAME): what the experiment compares. $(call policy,METHOD): the folder of the last policy of one.
methods = $(or $($(1).methods),$(METHODS))
policy = $(1)$(if $(filter online-%,$(1)),/round-$(ROUNDS))

# $(call rewards,NAME): gives samples the rewards that are learned from.
rewards = al-score $(if $(learned-rewards),$($(1).run)/rm $($(1).reward) $(call common,$(1)),$(call oracle,$(1)))
# $(call learns-pairs,NAME,LOSS): trains by a loss of al-train-exo; the policy and the records are to follow.
learns-pairs = al-train-exo --loss $(2) --resume --seed $(SEED) \
  --beta-pi $(call setting,$(1),beta) --beta-r $(or $(call setting,$(1),beta-r),$(call setting,$(1),beta)) --temperature $(call setting,$(1),temperature) \
  $(call common,$(1)) $(call setting,$(1),lengths) $(call setting,$(1),align)

# $(call EXO,NAME): the experiment's targets. It needs what START needs (start.mk), and beside settings:
#   NAME.oracle              toy:NAME where there is one; NAME.real.oracle: what judges at that scale
#   NAME.reward              how al-score reads its reward model: flags
#   NAME.methods             (if not METHODS) what it compares; of on-policy methods see ppo.mk, of online-* hh-online
define EXO
$(call START,$(1))

# For -rw: the SFT policy's own answers, rewarded.
$$($(1).run)/samples.jsonl: $$($(1).run)/train.jsonl $$($(1).run)/sft/run.json
	head -n $$(call setting,$(1),prompts) $$< > $$@.prompts
	bash examples/timed.sh $$($(1).run)/samples.seconds al-sample $$($(1).run)/sft $$@.prompts -n 4 --ids --seed $(SEED) -t $$(call setting,$(1),temperature) \
	  -m $$(call setting,$(1),new-tokens) $$(call common,$(1)) $$(into)

$$($(1).run)/rw.jsonl: $$($(1).run)/samples.jsonl $(if $(learned-rewards),$$($(1).run)/rm/run.json)
	bash examples/timed.sh $$($(1).run)/samples.seconds $$(call rewards,$(1)) $$< $$(into)

# For -pref: people's preferences on as many prompts; with a classifier as reward model, its own among the samples.
$$($(1).run)/pref.jsonl: $$($(1).run)/$(if $(value $(1).labels),rw,train).jsonl
	head -n $$(call setting,$(1),prompts) $$< | $(if $(value $(1).labels),al-pref2rw --to pref --ties skip |) al-pref2rw \
	  > $$@.part && mv $$@.part $$@

$(foreach method,$(filter $(METHODS),$(call methods,$(1))),$$($(1).run)/$(method)/run.json): $$($(1).run)/%/run.json: $$($(1).run)/pref.jsonl $$($(1).run)/rw.jsonl
	bash examples/timed.sh $$($(1).run)/$$*.seconds $$(call learns-pairs,$(1),$$*) $$($(1).run)/sft \
	  $$($(1).run)/$$(lastword $$(subst -, ,$$*)).jsonl -o $$(@D) --save-every $$(call setting,$(1),spread) --keep 0 >> $$(@D).log

# On-policy, on as many prompts.
$(foreach method,$(filter $(ON-POLICY),$(call methods,$(1))),$$($(1).run)/$(method)/run.json): $$($(1).run)/%/run.json: $$($(1).run)/samples.jsonl $(if $(learned-rewards),$$($(1).run)/rm/run.json)
	bash examples/timed.sh $$($(1).run)/$$*.seconds $$(call on-policy,$(1),$$*,$(if $(learned-rewards),$$($(1).run)/rm,$$(call oracle,$(1)))) $$<.prompts \
	  -o $$(@D) --save-every $$(call setting,$(1),spread) --keep 0 >> $$(@D).log

# What the chosen answers are worth, to win against.
$$($(1).run)/chosen.learned.jsonl: $$($(1).run)/test.jsonl $$($(1).run)/rm/run.json
	al-pref2rw $(if $(value $(1).labels),--to chosen) $$< | al-score $$($(1).run)/rm $$($(1).reward) $$(call common,$(1)) -o $$@.part && mv $$@.part $$@

$$($(1).run)/chosen.oracle.jsonl: $$($(1).run)/test.jsonl $$(call oracle-file,$(1))
	al-pref2rw $$< | al-score $$(call oracle,$(1)) -o $$@.part && mv $$@.part $$@

$(foreach method,sft $(call methods,$(1)),$(call FIGURES,$(1),$(method)))

$$($(1).run)/report/table.md: $(foreach method,sft $(call methods,$(1)),$$($(1).run)/$(method).rows)
	RUN=$$($(1).run) ORACLE='$$(call oracle,$(1))' METHODS='sft $(call methods,$(1))' COSTS='$($(1).costs)' \
	  PAIRS=$(if $(value $(1).labels),,yes) bash examples/report.sh
endef

# $(call FIGURES,NAME,METHOD): what its policies say to held-out prompts, and what that is worth: a line a figure, for
# every checkpoint.
define FIGURES

$$($(1).run)/$(2).rows: $$($(1).run)/$(call policy,$(2))/run.json $$($(1).run)/chosen.learned.jsonl $$(if $$(call oracle,$(1)),$$($(1).run)/chosen.oracle.jsonl)
	RUN=$$($(1).run) ORACLE='$$(call oracle,$(1))' REWARD='$$($(1).reward)' LAST=$(call policy,$(2)) \
	  COMMON='$$(call common,$(1))' TEMPERATURE=$$(call setting,$(1),temperature) NEW_TOKENS=$$(call setting,$(1),new-tokens) DRAWS=$$(call setting,$(1),draws) \
	  bash examples/figures.sh $(2)
endef
