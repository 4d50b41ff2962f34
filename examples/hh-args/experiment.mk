# Helpful and harmless dialogue (Anthropic HH): decoding under a reward model's guidance (ARGS) beside other ways.
$(eval $(call HH,hh-args))
hh-args.data.stop := Human:
hh-args.paper.stop := Human:
hh-args.paper.new-tokens := 128
$(eval $(call ARGS,hh-args))
hh-args: ## ways of decoding: greedy, sampled, best of n, under a reward model's guidance
