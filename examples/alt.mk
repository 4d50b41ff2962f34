# The ALT experiments: from one SFT policy, iterations of sampling, feedback, and training under the feedback.
#
#   make tldr-alt-rm                  three iterations in the toy world
#   make tldr-alt-rm ITERATIONS=5     more of them; what is made already stays
#   make tldr-alt-lmu JUDGE=name BASE_URL=url DATA=folder
#                                     your own data, and your own judge (its key in OPENAI_API_KEY)
#
# DATA, MODEL, SCALE and the rest are those of start.mk.

ITERATIONS ?= $(if $(filter smoke real,$(scale)),2,3)

# Prompts of an iteration, completions of each, how they are drawn, what of the old pool goes, how the policy learns.
toy.round := 600
toy.samples := 20
toy.top-p := 1
toy.drop := 1
toy.learn := --lr 2e-3 --batch-size 16 --epochs 4
smoke.round := 16
smoke.samples := 6
smoke.learn := --lr 2e-3 --batch-size 8 --steps 2
data.round := 300
data.samples := 10
data.top-p := 1
data.drop := 1
data.learn := --lr 1e-3 --batch-size 16 --epochs 2
real.round := 32
real.samples := 8
real.top-p := 1
real.drop := 1
real.learn := --lora 16 --lr 5e-4 --batch-size 16 --epochs 1 --save-every 10
# Abadal et al. 2024; what differs by experiment is in its experiment.mk.
paper.round := 2048
paper.samples := 20
paper.top-p := 0.9
paper.drop := 1
paper.learn := --lr 2e-5 --batch-size 128 --epochs 2 --warmup 0.05 --betas 0.8,0.999

# $(call before,NAME,2): the policy that the second iteration begins with.
before = $($(1).run)/$(if $(filter 1,$(2)),sft,iteration-$(shell expr $(2) - 1))
# $(call under,NAME,2): under what the second iteration samples.
under = $(if $(filter 1,$(2)),,--condition $(or $($(1).under),best))
# $(call learns,NAME,2): how the second iteration learns.
learns = al-train-alt $(call before,$(1),$(2)) $($(1).run)/iteration-$(2).feedback.jsonl $($(1).mode) \
  $(if $(findstring --kl-coef,$($(1).mode)),--ref $($(1).run)/sft) \
  $(if $(filter 1,$(2)),,--pool $(call before,$(1),$(2))/pool.jsonl --drop $(call setting,$(1),drop)) --seed $(2) \
  $(call common,$(1)) $(call setting,$(1),lengths) $(call setting,$(1),learn)
# $(call scorer,NAME): the model that gives rewards, where it is not an oracle; and what has to be there for it.
scorer = $(if $(call oracle,$(1)),,$(or $($(1).classifier),$($(1).run)/rm))
scorer-file = $(addsuffix /run.json,$(filter $($(1).run)/rm,$(call scorer,$(1))))
# $(call scores,NAME): what writes rewards.
scores = al-score $(or $(call scorer,$(1)),$(call oracle,$(1))) $(if $(call scorer,$(1)),$($(1).reward) $(call common,$(1)))
# $(call labels,NAME): what writes a judge's feedback; in the toy world the judge runs beside it.
labels = $(with-judge) \
  al-label-ai $($(1).judged) --judge $(or $(JUDGE),$(if $(toy-world),$($(1).judge),$(error JUDGE=name: who judges)))

# $(call policies,NAME): what the experiment compares.
policies = sft $(patsubst %,iteration-%,$(shell seq $(ITERATIONS))) $(if $($(1).on-policy),ppo ppo-5)
# $(call rollouts,NAME,5): of how many rollouts PPO draws five times as many answers as the iterations together.
rollouts = $(shell expr $(2) \* $(ITERATIONS) \* $(call setting,$(1),round) \* $(call setting,$(1),samples) / 4 / $(call setting,$(1),a-rollout))

# $(call alt-environment,NAME): what alt.sh reads.
alt-environment = RUN=$($(1).run) COMMON='$(call common,$(1))' LENGTH='-m $(call setting,$(1),new-tokens)' \
  DRAWN='-t $(call setting,$(1),temperature) --top-p $(call setting,$(1),top-p)' DRAWS=$(call setting,$(1),draws) \
  SCORES='$(call scores,$(1))' ALSO='$(if $(toy-world),$($(1).also))' TOXIC='$($(1).toxic)' FEEDBACKS='$($(1).feedbacks)'

# $(call ALT,NAME): the experiment's targets. It needs what START needs (start.mk), and beside settings:
#   NAME.mode      al-train-alt's mode, its draws and its loss: flags
#   NAME.oracle    toy:NAME where there is one; NAME.real.oracle: the program that rewards at that scale
#   NAME.also      more of the toy world's oracles to validate by
#   NAME.reward    how al-score reads its reward model: flags
#   NAME.judged    (feedback by a judge) al-label-ai's mode and question: flags; NAME.judge: the toy world's judge
#   NAME.on-policy (yes) whether to compare with PPO, from as many answers and rewards and from five times as many (ppo.mk)
#   NAME.under     (if not best) the condition to sample under
#   NAME.feedbacks (lmu, where they are known) feedbacks to sample under for the picture, best first, with | between
#   NAME.toxic, NAME.classifier, NAME.outside
#                  (toxicity) what al-score is told to write toxicities, the model that gives the rewards (if not one
#                  that NAME.labels make), a command that writes prompts of another domain
define ALT
# A pretrained model knows the words of the conditions; a new one's tokenizer should not spell them.
$(1).words := examples/conditions.jsonl
$(call START,$(1))
$(foreach i,$(shell seq $(ITERATIONS)),$(call ITERATION,$(1),$(i)))

$$($(1).run)/outside.jsonl: | $$(SETUP)
	@mkdir -p $$(@D)
	$$($(1).outside) > $$@.part && mv $$@.part $$@

# PPO with the same rewards, from as many answers and from five times as many.
$$($(1).run)/ppo/run.json $$($(1).run)/ppo-5/run.json: $$($(1).run)/%/run.json: $$($(1).run)/train.jsonl $$($(1).run)/sft/run.json $$(call scorer-file,$(1))
	$$(call on-policy,$(1),ppo,$$(or $$(call scorer,$(1)),$$(call oracle,$(1)))) $$< -o $$(@D) >> $$(@D).log \
	  --steps $$(call rollouts,$(1),$$(if $$(filter ppo-5,$$*),5,1))

# 4. Every policy on held-out prompts, greedily; those of the iterations under the best feedback.
$(foreach policy,$(call policies,$(1)),$$($(1).run)/$(policy).rows): $$($(1).run)/%.rows: \
    $$($(1).run)/%/run.json $$($(1).run)/test.jsonl $$(call scorer-file,$(1)) $(if $($(1).toxic),$$($(1).run)/outside.jsonl)
	$$(call alt-environment,$(1)) bash examples/alt.sh validate $$*

$$($(1).run)/report/table.md: $(foreach policy,$(call policies,$(1)),$$($(1).run)/$(policy).rows) \
    $$($(1).run)/iteration-$(ITERATIONS).learnt.jsonl
	$$(call alt-environment,$(1)) POLICIES='$(call policies,$(1))' bash examples/alt.sh report $(ITERATIONS)
endef

# $(call ITERATION,NAME,2): the second iteration's targets.
define ITERATION

# 1. Sample: the first time of the SFT policy, then of the last one under the best feedback; each time other prompts.
$$($(1).run)/iteration-$(2).samples.jsonl: $$($(1).run)/train.jsonl $$(call before,$(1),$(2))/run.json
	from=$$$$((($(2) - 1) * $$(call setting,$(1),round) % $$$$(wc -l < $$<))) && \
	  awk "NR > $$$$from && NR <= $$$$from + $$(call setting,$(1),round)" $$< $$< > $$@.prompts
	al-sample $$(call before,$(1),$(2)) $$@.prompts $$(call under,$(1),$(2)) -n $$(call setting,$(1),samples) --ids --seed $(2) \
	  -t $$(call setting,$(1),temperature) --top-p $$(call setting,$(1),top-p) -m $$(call setting,$(1),new-tokens) $$(call common,$(1)) $$(into)

# 2. Feedback: a reward or a judge's words for each.
$$($(1).run)/iteration-$(2).feedback.jsonl: $$($(1).run)/iteration-$(2).samples.jsonl $(if $($(1).judged),,$$(call scorer-file,$(1)))
	$(if $($(1).judged),$$(call labels,$(1)),$$(call scores,$(1))) $$< $$(into)

# 3. Learn: sort the pool, draw evenly, train on each completion under its feedback.
$$($(1).run)/iteration-$(2)/run.json: $$($(1).run)/iteration-$(2).feedback.jsonl
	$$(call learns,$(1),$(2)) -o $$(@D) --resume >> $$(@D).log

# What was learnt, to be read.
$$($(1).run)/iteration-$(2).learnt.jsonl: $$($(1).run)/iteration-$(2)/run.json
	$$(call learns,$(1),$(2)) --emit > $$@.part && mv $$@.part $$@
endef
