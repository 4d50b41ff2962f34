# The ARGS experiments: held-out answers by ways of decoding one SFT policy, with and without its reward model's guidance,
# and those of a policy that PPO trained with that reward model.

toy.weights := 0.5 1 2 4
smoke.weights := 1
data.weights := 0.5 1 2 4
paper.weights := 0.5 1 1.5 2

# $(call ARGS,NAME): the experiment's targets. It needs what START needs (start.mk), and beside settings:
#   NAME.oracle              toy:NAME where there is one
define ARGS
$(call START,$(1))

# PPO with the same reward model, as ARGS compares with.
$$($(1).run)/ppo/run.json: $$($(1).run)/train.jsonl $$($(1).run)/rm/run.json
	head -n $$(call setting,$(1),prompts) $$< > $$(@D).prompts
	$$(call on-policy,$(1),ppo,$$($(1).run)/rm) $$(@D).prompts -o $$(@D) >> $$(@D).log

# One way after the other, whatever JOBS: their seconds are compared.
$$($(1).run)/report/table.md: $$($(1).run)/test.jsonl $$($(1).run)/rm/run.json $$($(1).run)/ppo/run.json
	RUN=$$($(1).run) ORACLE=$(if $(toy-world),$($(1).oracle)) COHERENCE='$(COHERENCE)' \
	  COMMON='$$(call setting,$(1),prompt) --max-new-tokens $$(call setting,$(1),new-tokens)' DTYPE=$(DTYPE) \
	  WEIGHTS='$$(call setting,$(1),weights)' STOP='$$(call setting,$(1),stop)' bash examples/decode.sh
endef
