#!/usr/bin/env bash
# Passes all tests on a fresh Debian machine: installs what is missing, checks types, lint and format, builds, tests.
#   scripts/test.sh              everything
#   scripts/test.sh PATTERN...   only test files whose path contains one of the patterns
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "scripts/test.sh: the tests make network namespaces and program the kernel inside them: run as root" >&2
  exit 1
fi

scripts/lab-packages.sh
scripts/prepare.sh

if [ $# = 0 ]; then
  echo "== types, lint, format"
  npx --no-install tsc -p tsconfig.json
  npx --no-install oxlint --type-aware --deny-warnings
  npx --no-install prettier --check --log-level warn .
fi

files=()
while IFS= read -r file; do
  if [ $# = 0 ]; then
    files+=("$file")
    continue
  fi
  for pattern in "$@"; do
    case "$file" in *"$pattern"*) files+=("$file"); break ;; esac
  done
done < <(find test -name '*.test.ts' | sort)

echo "== ${#files[@]} test files"
exec node --import tsx --import ./test/support/fixedSeed.ts --test --test-force-exit --test-concurrency=2 --test-timeout=1500000 "${files[@]}"
