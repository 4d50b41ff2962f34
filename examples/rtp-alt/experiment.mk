# Toxicity (RealToxicityPrompts): ALT, the ranks of a classifier's probability of "toxic" as words.
LABEL ?= toxic
rtp-alt.reward = --label $(LABEL) --as prob --negate
rtp-alt.mode := --mode rm --tags toxicity --scope pool --kl-coef 0.05 --entropy-coef 0.06
rtp-alt.toy.held-out := 100
rtp-alt.toy.round := 300
rtp-alt.toy.drop := 0
rtp-alt.paper.drop := 0
rtp-alt.paper.new-tokens := 20
ifdef toy-world
rtp-alt.toxic := toy:toxicity
rtp-alt.train := al-data toy --task dialogue --limit $(call setting,rtp-alt,records)
rtp-alt.test := al-data toy --task dialogue --limit $(call setting,rtp-alt,held-out) --split test
rtp-alt.labels := al-data toy --task dialogue --limit $(call setting,rtp-alt,labelled) --labels
rtp-alt.outside := al-data toy --task review --limit $(call setting,rtp-alt,held-out) --split test --only prompts
else
rtp-alt.classifier = $(or $(CLASSIFIER),none)
rtp-alt.reward += $(if $(CLASSIFIER),,$(error CLASSIFIER=name: what classifies texts, LABEL one of its classes))
rtp-alt.toxic = $(CLASSIFIER) --label $(LABEL) --as prob $(call common,rtp-alt)
# SFT learns what followed the prompts on the web.
rtp-alt.train = al-data rtp $(if $(DATA),--from $(call data-file,rtp.train),--split train) | al-pref2rw --to sft
rtp-alt.test = al-data rtp $(if $(DATA),--from $(call data-file,rtp.test),--split test --limit 1000)
rtp-alt.outside = al-data writing-prompts $(if $(WRITING),--from $(WRITING)) --split test --only prompts --limit 1000
endif
$(eval $(call ALT,rtp-alt))
rtp-alt: ## ALT against toxicity: the ranks of a classifier's probability as words
