# Answers to questions (Stanford Human Preferences): decoding under a reward model's guidance (ARGS) beside other ways.
shp-args.oracle := toy:helpful
shp-args.paper.new-tokens := 128
ifeq ($(scale),toy)
shp-args.train := al-data toy --task dialogue --by helpful --limit 4000
shp-args.test := al-data toy --task dialogue --by helpful --limit 200 --split test
else
shp-args.train = al-data shp $(if $(DATA),--from $(call found,pairs.train),--split train)
shp-args.test = al-data shp $(if $(DATA),--from $(call found,pairs.test),--split test --limit 300)
endif
$(eval $(call ARGS,shp-args))
shp-args: ## the same on questions and their answers
