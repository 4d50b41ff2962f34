# A chat model trained on its own answers by GRPO, with adapters: against a program (forty words) and against the reward
# model of examples/chat; what it says to held-out prompts before and after.
#
#   make grpo-chat MODEL=folder DATA=folder     as in examples/chat, whose reward model and prompts these are

grpo-chat.run := $(RUNS)/$(subst $(space),-,$(strip $(filter smoke,$(SCALE)) grpo-chat $(notdir $(MODEL:/=)) $(notdir $(DATA:/=))))
grpo-chat.policies := before words rm
grpo-chat.learn := --lora 16 --lr 5e-4 --warmup 3 --schedule constant --pack-tokens 2048 -n 4 --prompts 4 --batch-size 16
grpo-chat.steps := $(if $(filter smoke,$(SCALE)),2,30)
grpo-chat.new-tokens := $(if $(filter smoke,$(SCALE)),12,72)
grpo-chat.held-out := 80
grpo-chat.rm := $(chat.run)/rm
grpo-chat.words := py:examples/grpo-chat/forty_words.py:near

.PHONY: grpo-chat
.SECONDARY: $(foreach kind,answers scored,$(grpo-chat.policies:%=$(grpo-chat.run)/%.$(kind).jsonl))
grpo-chat: $(SETUP) ## a chat model by GRPO, against a program and a reward model
	@$(MAKE) --no-print-directory $(grpo-chat.run)/report/table.md
	@echo "$(grpo-chat.run)/report:" && ls $(grpo-chat.run)/report && cat $(grpo-chat.run)/report/table.md

$(grpo-chat.run)/rm/run.json $(grpo-chat.run)/words/run.json: $(grpo-chat.run)/%/run.json: $(chat.run)/prompts.jsonl $(chat.run)/rm/run.json $(chat.start)
	@mkdir -p $(grpo-chat.run)
	al-train-ppo $(chat.model) $< -o $(@D) --method grpo --reward $(grpo-chat.$*) --steps $(grpo-chat.steps) --resume \
	  -m $(grpo-chat.new-tokens) $(chat.common) $(grpo-chat.learn) --save-every 5 --log-samples $(@D).samples.jsonl >> $(@D).log

$(grpo-chat.run)/test.jsonl: $(chat.run)/test.jsonl
	@mkdir -p $(@D)
	head -n $(grpo-chat.held-out) $< > $@

$(grpo-chat.run)/before.answers.jsonl: $(grpo-chat.run)/test.jsonl $(chat.start)
	al-sample $(chat.model) $< --logps -m $(grpo-chat.new-tokens) $(chat.common) $(into)

$(grpo-chat.run)/%.answers.jsonl: $(grpo-chat.run)/test.jsonl $(grpo-chat.run)/%/run.json
	al-sample $(grpo-chat.run)/$* $< --logps -m $(grpo-chat.new-tokens) $(chat.common) $(into)

$(grpo-chat.run)/%.scored.jsonl: $(grpo-chat.run)/%.answers.jsonl $(chat.run)/rm/run.json
	al-score $(chat.model) --logps --as-field ref_logps $< $(chat.common) | al-score $(chat.run)/rm $(chat.common) > $@.part && mv $@.part $@

$(grpo-chat.run)/%.rows: $(grpo-chat.run)/%.scored.jsonl
	(al-eval reward $< --as learned_reward --set method=$*; al-eval kl $< --set method=$*; \
	  al-score $(grpo-chat.words) $< | al-eval reward --as near_40 --set method=$*) > $@.part && mv $@.part $@

$(grpo-chat.run)/report/table.md: $(foreach when,$(grpo-chat.policies),$(grpo-chat.run)/$(when).rows)
	mkdir -p $(@D)
	python3 examples/answers.py $(foreach when,$(grpo-chat.policies),$(when)=$(grpo-chat.run)/$(when).scored.jsonl) > $(@D)/answers.md
	al-eval curve words=$(grpo-chat.run)/words/log.jsonl --field reward --plot $(@D)/words.png > $(@D)/words.json
	al-eval curve rm=$(grpo-chat.run)/rm/log.jsonl --field reward --plot $(@D)/rm.png > $(@D)/rm.json
	al-eval table $(foreach when,$(grpo-chat.policies),$(when)=$(grpo-chat.run)/$(when).rows) --columns near_40,learned_reward,kl,words \
	  --markdown > $@.part && mv $@.part $@
