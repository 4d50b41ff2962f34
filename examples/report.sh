# The experiment's table and pictures from every method's rows: bash examples/report.sh
# RUN, METHODS, ORACLE, PAIRS (whether the reward model orders pairs) and COSTS (whether to count what policies were made
# of) come from exo.mk.
set -euo pipefail
reward=${ORACLE:+reward} columns=${ORACLE:+reward,winrate,}
reward=${reward:-learned_reward}
judged=${ORACLE:+oracle}
judged=${judged:-learned}
mkdir -p "$RUN/report"
finals=() answers=() differences=() logs=()

# cost METHOD: its answers with a reward, and the seconds of processor time that sampling, scoring and training took.
cost() {
  local answers seconds=("$RUN/$1.seconds")
  case $1 in
    sft) echo "{\"method\":\"sft\",\"samples\":0,\"seconds\":0}"; return ;;
    online-*) answers=$(cat "$RUN/$1"/round-*.rw.jsonl | wc -l) seconds=("$RUN/$1/seconds") ;;
    *-rw) answers=$(wc -l < "$RUN/rw.jsonl") seconds+=("$RUN/samples.seconds") ;;
    *) answers=$(wc -l < "$RUN/samples.jsonl.prompts") ;;
  esac
  awk -v method="$1" -v samples=$((4 * answers)) '{ seconds += $1 + $2 }
    END { printf "{\"method\":\"%s\",\"samples\":%d,\"seconds\":%.0f}\n", method, samples, seconds }' "${seconds[@]}"
}

for method in $METHODS; do
  last=$(tail -n 1 "$RUN/$method.work/policies" | cut -d ' ' -f 1)
  grep -F "\"step\":$last," "$RUN/$method.rows" > "$RUN/$method.work/last.rows"
  finals+=("$method=$RUN/$method.work/last.rows")
  grep -F "{\"step\":$last," "$RUN/$method.work/$judged.jsonl" > "$RUN/$method.work/last.jsonl"
  answers+=("$method=$RUN/$method.work/last.jsonl")
  # What exo-rw gets more than another method, where both reach the same KL.
  case $method in sft | exo-rw) ;; *)
    al-eval difference exo-rw="$RUN/exo-rw.work/$judged.jsonl" "$method=$RUN/$method.work/$judged.jsonl" --at-equal-kl \
      --set "method=$method" > "$RUN/$method.work/difference.rows"
    differences+=("$method=$RUN/$method.work/difference.rows") ;;
  esac
  [ -z "$COSTS" ] || cost "$method" >> "$RUN/$method.work/last.rows"
  case $method in *-rw | *-pref) [ ! -e "$RUN/$method/log.jsonl" ] || logs+=("$method=$RUN/$method/log.jsonl") ;; esac
done
al-eval table "${finals[@]}" --columns "${columns}learned_reward,learned_reward_winrate,kl,words${COSTS:+,samples,seconds}" --markdown \
  > "$RUN/report/table.part"
al-eval table "${differences[@]}" --columns difference --markdown > "$RUN/report/differences.md"
python3 examples/answers.py "${answers[@]}" > "$RUN/report/answers.md"
al-eval frontier --reward $reward $(for method in $METHODS; do echo "$RUN/$method.rows"; done) \
  --plot "$RUN/report/frontier.png" > "$RUN/report/frontier.json"
[ -z "$PAIRS" ] || al-eval rm "$RUN/chosen.learned.jsonl" --plot "$RUN/report/calibration.png" > "$RUN/report/rm.json"
[ ! -e "$RUN/gold" ] || al-eval rm "$RUN/chosen.oracle.jsonl" > "$RUN/report/gold.json"
al-eval curve "${logs[@]}" --field margin --plot "$RUN/report/margins.png" > /dev/null
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
