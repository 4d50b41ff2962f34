# The experiment's table and pictures from every method's rows: bash examples/report.sh
# RUN, METHODS, ORACLE and PAIRS (whether the reward model orders pairs) come from exo.mk.
set -euo pipefail
reward=${ORACLE:+reward} columns=${ORACLE:+reward,winrate,}
reward=${reward:-learned_reward}
mkdir -p "$RUN/report"
finals=() logs=()
for method in $METHODS; do
  last=$(tail -n 1 "$RUN/$method.work/policies" | cut -d ' ' -f 1)
  grep -F "\"step\":$last," "$RUN/$method.rows" > "$RUN/$method.work/last.rows"
  finals+=("$method=$RUN/$method.work/last.rows")
  [ "$method" = sft ] || logs+=("$method=$RUN/$method/log.jsonl")
done
al-eval table "${finals[@]}" --columns "${columns}learned_reward,learned_reward_winrate,kl,words" --markdown \
  > "$RUN/report/table.part"
al-eval frontier --reward $reward $(for method in $METHODS; do echo "$RUN/$method.rows"; done) \
  --plot "$RUN/report/frontier.png" > "$RUN/report/frontier.json"
[ -z "$PAIRS" ] || al-eval rm "$RUN/chosen.learned.jsonl" --plot "$RUN/report/calibration.png" > "$RUN/report/rm.json"
al-eval curve "${logs[@]}" --field margin --plot "$RUN/report/margins.png" > /dev/null
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
