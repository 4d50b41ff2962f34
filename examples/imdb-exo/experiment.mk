# Film reviews (IMDB): a sentiment classifier's log-odds are the reward; preferences are its own, among samples.
imdb-exo.oracle := toy:sentiment
imdb-exo.reward := --label positive --as logodds
imdb-exo.toy.labelled := 2000
imdb-exo.toy.sft := --lr 2e-3 --steps 300
imdb-exo.data.rm := --lr 3e-4 --epochs 2 --max-completion 383
imdb-exo.paper.beta := 0.1
imdb-exo.paper.new-tokens := 500
imdb-exo.paper.prompt := --max-prompt 12
imdb-exo.paper.lengths := --max-length 512 --max-completion 500
ifdef toy-world
imdb-exo.train := al-data toy --task review --limit $(call setting,imdb-exo,records)
imdb-exo.test := al-data toy --task review --limit $(call setting,imdb-exo,held-out) --split test
imdb-exo.labels := al-data toy --task review --limit $(call setting,imdb-exo,labelled) --labels
else
# The paper's prompts are 10 tokens; 8 words are about that.
imdb-exo.train = al-data imdb $(if $(DATA),--from $(call data-file,sft.train),--prompt-words 8 --split train)
imdb-exo.test = al-data imdb $(if $(DATA),--from $(call data-file,sft.test),--prompt-words 8 --split test)
imdb-exo.labels = al-data imdb --labels $(if $(DATA),--from $(call data-file,labelled.train),--split train)
endif
$(eval $(call EXO,imdb-exo))
imdb-exo: ## EXO and DPO on film reviews; a classifier is the reward
