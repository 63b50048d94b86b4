#!/usr/bin/env bash
# Plans or syncs, and leaves outputs for the steps behind it. The plan comes first in both cases, so that the outputs are the same.
set -euo pipefail
if [ -z "$KAPSO_API_KEY" ]; then
  if [ "$COMMAND" = sync ]; then
    echo "::error::sync needs the input api-key"
    exit 78
  fi
  echo "::notice::no api-key: the plan is left out, as for a pull request from a fork"
  exit 0
fi
folder="${RUNNER_TEMP:?}/kapso-sync-plan"
mkdir -p "$folder"
read -ra arguments <<< "$ARGUMENTS" # ${…+…} below: the bash of macOS takes an empty array for one that is not set
code=0
case "$COMMAND" in
  plan) kapso-sync plan "$SOURCE" ${arguments[@]+"${arguments[@]}"} --json --markdown "$folder/plan.md" > "$folder/plan.json" || code=$? ;;
  sync) kapso-sync sync "$SOURCE" ${arguments[@]+"${arguments[@]}"} ${EXPECT:+--expect "$EXPECT"} --json > "$folder/plan.json" || code=$? ;;
  *)
    echo "::error::the input command is plan or sync"
    exit 64
    ;;
esac
if [ -s "$folder/plan.json" ]; then
  python3 - "$folder/plan.json" >> "$GITHUB_OUTPUT" <<'PYTHON'
import json, sys

plan = json.load(open(sys.argv[1], encoding="utf-8"))
changes = sum(function["action"] not in ("none", "blocked", "invalid") for function in plan["functions"])
print(f"digest={plan['digest']}\nin-sync={str(plan['in_sync']).lower()}\nchanges={changes}")
PYTHON
fi
if [ -s "$folder/plan.md" ]; then
  cat "$folder/plan.md" >> "${GITHUB_STEP_SUMMARY:-/dev/null}"
  echo "folder=$folder" >> "$GITHUB_OUTPUT"
  if grep -q '^> \*\*Cut\.\*\* ' "$folder/plan.md"; then echo "cut=true" >> "$GITHUB_OUTPUT"; fi
fi
exit "$code"
