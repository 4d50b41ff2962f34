# Figures before and after, and the answers side by side: RUN=folder bash examples/chat/report.sh
set -euo pipefail
mkdir -p "$RUN/report"
al-eval rm "$RUN/judged.jsonl" > "$RUN/report/rm.json"
for when in before after; do
  {
    al-eval reward "$RUN/$when.scored.jsonl" --against "$RUN/before.scored.jsonl" --set method=$when
    al-eval kl "$RUN/$when.scored.jsonl" --set method=$when
    al-eval text "$RUN/$when.scored.jsonl" --set method=$when
  } > "$RUN/$when.rows"
done
python3 - "$RUN" > "$RUN/report/answers.md" <<'PY'
import json, random, sys

before, after = ([json.loads(line) for line in open(f"{sys.argv[1]}/{when}.scored.jsonl")] for when in ("before", "after"))
for place in sorted(random.Random(0).sample(range(len(before)), min(10, len(before)))):
    print("## " + " ".join(before[place]["messages"][-1]["content"].split()), end="\n\n")
    for name, record in (("before", before[place]), ("after", after[place])):
        print(f"- {name} ({record['rewards'][0]:+.2f}): " + " ".join(record["completions"][0].split()))
    print()
PY
al-eval table before="$RUN/before.rows" after="$RUN/after.rows" --columns reward,winrate,kl,words --markdown > "$RUN/report/table.part"
mv "$RUN/report/table.part" "$RUN/report/table.md"  # last: it says that all are there
