#!/usr/bin/env bash
# Installs kapso-sync from the action's own checkout: locked packages, esbuild and workerd, and a command on PATH.
set -euo pipefail
home="${RUNNER_TEMP:?}/kapso-sync"
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$GITHUB_ACTION_PATH/requirements/run.txt"
npm ci --prefix "$GITHUB_ACTION_PATH" --ignore-scripts --no-audit --no-fund --silent
mkdir -p "$home/bin"
cat > "$home/bin/kapso-sync" <<SCRIPT
#!/bin/sh
PYTHONPATH='$GITHUB_ACTION_PATH' exec '$home/venv/bin/python' -m kapso_sync "\$@"
SCRIPT
chmod +x "$home/bin/kapso-sync"
echo "$home/bin" >> "$GITHUB_PATH"
