# The EXO experiments: samples of the SFT policy, scored, and preferences -> four policies -> held-out figures.

METHODS := exo-pref exo-rw dpo-pref dpo-rw

# What rewards the samples that -rw learns from: the toy world's oracle, where there is one, or the learned model.
REWARDS ?= $(if $(toy-world),oracle,learned)

# $(call EXO,NAME): the experiment's targets. It needs what START needs (start.mk), and beside settings:
#   NAME.oracle              toy:NAME where there is one
#   NAME.reward              how al-score reads its reward model: flags
define EXO
$(call START,$(1))

# For -rw: the SFT policy's own answers, rewarded.
$$($(1).run)/samples.jsonl: $$($(1).run)/train.jsonl $$($(1).run)/sft/run.json
	head -n $$(call setting,$(1),prompts) $$< > $$@.prompts
	al-sample $$($(1).run)/sft $$@.prompts -n 4 --ids -t $$(call setting,$(1),temperature) \
	  -m $$(call setting,$(1),new-tokens) $$(call common,$(1)) $$(into)

$$($(1).run)/rw.jsonl: $$($(1).run)/samples.jsonl $(if $(filter oracle,$(REWARDS)),,$$($(1).run)/rm/run.json)
	al-score $(if $(filter oracle,$(REWARDS)),$$($(1).oracle),$$($(1).run)/rm $$($(1).reward) $$(call common,$(1))) \
	  $$< $$(into)

# For -pref: people's preferences on as many prompts; with a classifier as reward model, its own among the samples.
$$($(1).run)/pref.jsonl: $$($(1).run)/$(if $(value $(1).labels),rw,train).jsonl
	head -n $$(call setting,$(1),prompts) $$< | $(if $(value $(1).labels),al-pref2rw --to pref --ties skip |) al-pref2rw \
	  > $$@.part && mv $$@.part $$@

$(foreach method,$(METHODS),$$($(1).run)/$(method)/run.json): $$($(1).run)/%/run.json: $$($(1).run)/pref.jsonl $$($(1).run)/rw.jsonl
	al-train-exo $$($(1).run)/sft $$($(1).run)/$$(lastword $$(subst -, ,$$*)).jsonl -o $$(@D) --resume --loss $$* \
	  --beta-pi $$(call setting,$(1),beta) --beta-r $$(call setting,$(1),beta) --temperature $$(call setting,$(1),temperature) \
	  $$(call common,$(1)) $$(call setting,$(1),lengths) $$(call setting,$(1),align) --save-every $$(call setting,$(1),spread) --keep 0 >> $$(@D).log

# What the chosen answers are worth, to win against.
$$($(1).run)/chosen.learned.jsonl: $$($(1).run)/test.jsonl $$($(1).run)/rm/run.json
	al-pref2rw $(if $(value $(1).labels),--to chosen) $$< | al-score $$($(1).run)/rm $$($(1).reward) $$(call common,$(1)) -o $$@.part && mv $$@.part $$@

$$($(1).run)/chosen.oracle.jsonl: $$($(1).run)/test.jsonl
	al-pref2rw $$< | al-score $$($(1).oracle) -o $$@.part && mv $$@.part $$@

# What the policies say to held-out prompts, and what that is worth: a line a figure, for every checkpoint.
$(foreach method,sft $(METHODS),$$($(1).run)/$(method).rows): $$($(1).run)/%.rows: $$($(1).run)/%/run.json \
    $$($(1).run)/chosen.learned.jsonl $(if $(toy-world),$$($(1).run)/chosen.oracle.jsonl)
	RUN=$$($(1).run) ORACLE=$(if $(toy-world),$($(1).oracle)) REWARD='$$($(1).reward)' \
	  COMMON='$$(call common,$(1))' TEMPERATURE=$$(call setting,$(1),temperature) NEW_TOKENS=$$(call setting,$(1),new-tokens) DRAWS=$$(call setting,$(1),draws) \
	  bash examples/figures.sh $$*

$$($(1).run)/report/table.md: $(foreach method,sft $(METHODS),$$($(1).run)/$(method).rows)
	RUN=$$($(1).run) ORACLE=$(if $(toy-world),$($(1).oracle)) METHODS='sft $(METHODS)' \
	  PAIRS=$(if $(value $(1).labels),,yes) bash examples/report.sh
endef
