#!/bin/sh
# Makes a checkout ready to run: npm packages, then the build; each only if it is missing or older than its sources.
# Says what it does on stderr; what npm says is shown only when it fails. Several at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'pointsman: %s\n' "$*" >&2; }

# stale OUTPUT SOURCE...: the output is missing or older than a source (a directory counts: files may have been removed).
stale() {
  output=$1
  shift
  [ ! -e "$output" ] || [ -n "$(find "$@" -newer "$output" -print -quit)" ]
}

packages_stale() { stale node_modules/.package-lock.json package-lock.json; }
build_stale() { stale dist/main.js src package.json scripts/build.mjs; }

# quietly WHAT COMMAND...
quietly() {
  what=$1
  shift
  output=.prepare.log
  if "$@" >"$output" 2>&1 9>&-; then
    rm -f "$output"
  else
    code=$?
    say "$what failed (exit code $code):"
    cat "$output" >&2
    rm -f "$output"
    exit 1
  fi
}

packages_stale || build_stale || exit 0

# The kernel drops the lock with the process that holds it, however that ends.
exec 9>.prepare.lock
if ! flock -n 9; then
  say 'another start is preparing the program: waiting for it'
  flock 9
fi

if packages_stale; then
  command -v npm >/dev/null || { say 'npm is needed to fetch packages; it comes with Node.js'; exit 1; }
  say 'fetching npm packages (first start, or package-lock.json changed) ...'
  quietly 'npm ci' npm ci --no-audit --no-fund
  touch node_modules/.package-lock.json
fi

if build_stale; then
  say 'building ...'
  # What is edited while the build runs has to count as newer than the build.
  started=.prepare.started
  : >"$started"
  quietly 'the build' node scripts/build.mjs
  touch -r "$started" dist/main.js
  rm -f "$started"
fi
