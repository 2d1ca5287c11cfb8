#!/bin/sh
# Makes a checkout ready to run: npm packages, then the build; each only if it is missing or older than its sources.
# Says what it does on stderr; what npm says is shown only when it fails. Several at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'pointsman: %s\n' "$*" >&2; }

# An output that is missing or older than a source (a directory counts: files may have been removed) is stale.
stale() {
  output=$1
  shift
  [ ! -e "$output" ] || [ -n "$(find "$@" -newer "$output" -print -quit)" ]
}

# quietly WHAT COMMAND...
quietly() {
  what=$1
  shift
  output=$(mktemp)
  if "$@" >"$output" 2>&1; then
    rm -f "$output"
  else
    code=$?
    say "$what failed (exit code $code):"
    cat "$output" >&2
    rm -f "$output"
    exit 1
  fi
}

# The lock outlives no process: the kernel drops it with the last holder of the descriptor.
exec 9>.prepare.lock
if ! flock -n 9; then
  say 'another start is preparing the program, waiting for it'
  flock 9
fi

if stale node_modules/.package-lock.json package-lock.json; then
  command -v npm >/dev/null || { say 'npm is needed to fetch packages; Debian: apt-get install npm'; exit 1; }
  say 'fetching npm packages (first start, or package-lock.json changed) …'
  quietly 'npm ci' npm ci --no-audit --no-fund 9>&-
  # npm keeps an unchanged file's time.
  touch node_modules/.package-lock.json
fi

if stale dist/main.js src package.json scripts/build.mjs; then
  say 'building dist …'
  started=$(mktemp)
  quietly 'the build' node scripts/build.mjs 9>&-
  # What was edited while the build ran is newer than the build.
  touch -r "$started" dist/main.js
  rm -f "$started"
fi
