# A chat model aligned with people's preferences among conversations, by adapters: a reward model, its own samples,
# exo-rw; what it says to held-out prompts before and after, side by side.
#
#   make chat MODEL=folder DATA=folder     your chat model, your pairs.train.jsonl and pairs.test.jsonl (HH's or chats)
#   make chat MODEL=folder [PART=name]     Anthropic HH from the Hub
#   make chat                              whether it runs: a new small model of the toy world, taught a template first

PART ?= helpful-base

chat.pairs := 640
chat.prompts := 480
chat.held-out := 160
chat.lengths := --max-length 448 --max-completion 160 --pack-tokens 2048
chat.new-tokens := 48
chat.rm := --lora 16 --lr 3e-4 --batch-size 16
chat.align := --lora 16 --lr 5e-4 --batch-size 16 --beta-pi 0.1 --beta-r 0.5
chat.save := --save-every 10

chat.run := $(RUNS)/$(subst $(space),-,$(strip $(filter smoke,$(SCALE)) chat $(notdir $(MODEL:/=)) $(notdir $(DATA:/=))))
ifdef MODEL
chat.model := $(MODEL)
chat.start :=
chat.rows = al-data hh --chat $(if $(DATA),--from $(call data-file,pairs.$(1)),--part $(PART) --split $(1))
else
chat.model := $(chat.run)/taught
chat.start := $(chat.run)/taught/run.json
chat.rows = al-data toy --split $(1) --limit $(if $(filter smoke,$(SCALE)),400,4000) | al-data chat
chat.lengths := --max-length 256 --max-completion 64
chat.dtype := --dtype fp32
endif
ifeq ($(SCALE),smoke)
chat.pairs := 24
chat.prompts := 8
chat.held-out := 6
chat.new-tokens := 12
chat.rm += --steps 2
chat.align += --steps 2
chat.save := --save-every 1
endif
chat.common := $(chat.dtype) --max-prompt 288

.PHONY: chat
chat: $(SETUP) ## a chat model, aligned by adapters; held-out answers side by side
	@$(MAKE) --no-print-directory $(chat.run)/report/table.md
	@echo "$(chat.run)/report:" && ls $(chat.run)/report && cat $(chat.run)/report/table.md

# The reward model's pairs, and after those the prompts to sample for.
$(chat.run)/rows.jsonl: | $(SETUP)
	@mkdir -p $(@D)
	$(call chat.rows,train) > $@.part && mv $@.part $@

$(chat.run)/pairs.jsonl: $(chat.run)/rows.jsonl
	head -n $(chat.pairs) $< > $@

$(chat.run)/prompts.jsonl: $(chat.run)/rows.jsonl
	sed -n "$$(($(chat.pairs) + 1)),$$(($(chat.pairs) + $(chat.prompts)))p" $< > $@

$(chat.run)/test.jsonl: | $(SETUP)
	@mkdir -p $(@D)
	$(call chat.rows,test) > $@.rows && head -n $(chat.held-out) $@.rows > $@

# Without a chat model: a new one of the toy world that learns examples/chat/template.jinja.
$(chat.run)/taught/run.json: $(chat.run)/rows.jsonl examples/chat/template.jinja
	al-data new-model $(chat.run)/base $< --size 1m
	al-sft $(chat.run)/base $< -o $(@D) --template examples/chat/template.jinja $(chat.common) $(chat.lengths) \
	  --lr 2e-3 --steps $(if $(filter smoke,$(SCALE)),4,400) >> $(@D).log

$(chat.run)/rm/run.json: $(chat.run)/pairs.jsonl $(chat.start)
	al-train-rm $(chat.model) $< -o $(@D) --resume $(chat.common) $(chat.lengths) $(chat.rm) $(chat.save) >> $(@D).log

$(chat.run)/samples.jsonl: $(chat.run)/prompts.jsonl $(chat.start)
	al-sample $(chat.model) $< -n 4 --ids -m $(chat.new-tokens) $(chat.common) $(into)

$(chat.run)/rw.jsonl: $(chat.run)/samples.jsonl $(chat.run)/rm/run.json
	al-score $(chat.run)/rm $< $(chat.common) $(into)

$(chat.run)/exo/run.json: $(chat.run)/rw.jsonl
	al-train-exo $(chat.model) $< -o $(@D) --resume $(chat.common) $(chat.lengths) $(chat.align) $(chat.save) >> $(@D).log

# What is said to held-out prompts, and what that is worth.
$(chat.run)/before.answers.jsonl: $(chat.run)/test.jsonl $(chat.start)
	al-sample $(chat.model) $< -n 2 --logps -m $(chat.new-tokens) $(chat.common) $(into)

$(chat.run)/after.answers.jsonl: $(chat.run)/test.jsonl $(chat.run)/exo/run.json
	al-sample $(chat.run)/exo $< -n 2 --logps -m $(chat.new-tokens) $(chat.common) $(into)

$(chat.run)/%.scored.jsonl: $(chat.run)/%.answers.jsonl $(chat.run)/rm/run.json
	al-score $(chat.model) --logps --as-field ref_logps $< $(chat.common) | al-score $(chat.run)/rm $(chat.common) > $@.part && mv $@.part $@

$(chat.run)/judged.jsonl: $(chat.run)/test.jsonl $(chat.run)/rm/run.json
	al-pref2rw $< | al-score $(chat.run)/rm $(chat.common) > $@.part && mv $@.part $@

$(chat.run)/report/table.md: $(chat.run)/before.scored.jsonl $(chat.run)/after.scored.jsonl $(chat.run)/judged.jsonl
	RUN=$(chat.run) bash examples/chat/report.sh
