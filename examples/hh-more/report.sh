# The tables and pictures of the reward models and of the policies they chose for: bash examples/hh-more/report.sh
# RUN, MODELS and QUESTIONS (which a judge was asked; maybe none) come from experiment.mk.
set -euo pipefail
to=$RUN/report
mkdir -p "$to" "$RUN/rows"
models=() policies=()
for model in $MODELS; do
  al-eval rm "$RUN/$model.pairs.jsonl" --set "method=$model" --plot "$to/$model.png" > "$RUN/rows/$model.json"
  models+=("$RUN/rows/$model.json")
done
al-eval curve more="$RUN/rm-more/log.jsonl" --field 'lambda_*' --smooth 10 --plot "$to/lambda.png" > "$to/lambda.json"
for question in $QUESTIONS; do
  for model in $MODELS; do
    grep -F "{\"policy\":\"$model\"," "$RUN/judged.$question.jsonl" |
      al-eval winrate --set "method=$model" --set "question=$question" > "$RUN/rows/$model.$question.json"
    policies+=("$RUN/rows/$model.$question.json")
  done
done
{
  for figure in accuracy ECE log_loss; do
    echo "$figure:"
    echo
    al-eval table "${models[@]}" --across domain --columns $figure --markdown
    echo
  done
  if [ -n "$QUESTIONS" ]; then
    echo "Judged win rate over the SFT policy:"
    echo
    al-eval table "${policies[@]}" --across question --columns winrate --markdown
  fi
} > "$to/table.part"
mv "$to/table.part" "$to/table.md"  # last: it says that all are there
