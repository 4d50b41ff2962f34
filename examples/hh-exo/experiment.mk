# Helpful and harmless dialogue (Anthropic HH): people's preferences, a reward model, EXO and DPO.
$(eval $(call HH,hh-exo))
hh-exo.methods := $(METHODS) $(if $(filter real,$(scale)),grpo,ppo)
$(eval $(call EXO,hh-exo))
hh-exo: ## EXO and DPO on helpful and harmless dialogue
