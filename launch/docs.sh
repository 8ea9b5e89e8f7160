#!/usr/bin/env bash
# Builds the documentation's site into site/, and fails at the first broken link.
#
# Usage: ./launch/docs.sh [MKDOCS_ARGUMENT ...]    (`./launch/docs.sh serve` shows it while you write)

. "$(dirname "$(readlink -f "$0")")/environment.sh" requirements.txt docs

if [[ "${1:-}" == serve ]]; then
  exec .venv/bin/python -m mkdocs "$@"
fi
exec .venv/bin/python -m mkdocs build --strict "$@"
