# Answers to questions (Stanford Human Preferences): decoding under a reward model's guidance (ARGS) beside other ways.
shp-args.oracle := toy:helpful
shp-args.paper.new-tokens := 128
ifdef toy-world
shp-args.train := al-data toy --task dialogue --by helpful --limit $(call setting,shp-args,records)
shp-args.test := al-data toy --task dialogue --by helpful --limit $(call setting,shp-args,held-out) --split test
else
shp-args.train = al-data shp $(if $(DATA),--from $(call data-file,pairs.train),--split train)
shp-args.test = al-data shp $(if $(DATA),--from $(call data-file,pairs.test),--split test --limit 300)
endif
$(eval $(call ARGS,shp-args))
shp-args: ## the same on questions and their answers
