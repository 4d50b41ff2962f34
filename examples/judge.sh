# A command with the toy world's judge beside it: bash examples/judge.sh COMMAND...
# OPENAI_BASE_URL says where the judge is; it ends with the command.
set -euo pipefail
at=$(mktemp -d)
al-data toy --serve-judge 0 > "$at/url" &
judge=$!
trap 'kill "$judge" 2> "$at/errors" || true; rm -r "$at"' EXIT
until [ -s "$at/url" ]; do
  kill -0 "$judge" 2> "$at/errors" || { echo "examples/judge.sh: the judge has ended" >&2; exit 1; }
  sleep 0.1
done
# The loopback needs no proxy.
OPENAI_BASE_URL=$(cat "$at/url") NO_PROXY=127.0.0.1${NO_PROXY:+,$NO_PROXY} "$@"
