# Sourced by gpu.sh, tpu_vm.sh and slurm.sbatch: reads their arguments, and runs or shows their steps.
# Usage: . launch/command.sh [--check] CONFIG WORKDIR [--FLAG=VALUE ...]
#
# Sets root, the checkout; check, "yes" or empty; and command, what is to run in the root.

set -euo pipefail
root="$(cd -- "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." > /dev/null && pwd)"
usage="usage: ${0##*/} [--check] CONFIG WORKDIR [--FLAG=VALUE ...]"
check=""
command=()
missing=()

fail() {
  echo "lensjax: $1" >&2
  exit 1
}

# A check collects what is missing; a run ends at the first.
lacks() {
  [[ -n "$check" ]] || fail "missing: $1"
  missing+=("$1")
}

needs() {
  type -P "$1" > /dev/null || lacks "$1"
}

# Runs a command; a check prints it instead, as a shell reads it.
step() {
  if [[ -z "$check" ]]; then
    "$@"
  else
    local line
    printf -v line '%q ' "$@"
    echo "${line% }"
  fi
}

# The last line of a script: a run has ended before it.
end_check() {
  if ((${#missing[@]})); then
    printf 'missing: %s\n' "${missing[@]}" >&2
    exit 1
  fi
  exit 0
}

read_arguments() {
  local argument
  if [[ "${1:-}" == --check ]]; then
    check=yes
    shift
  fi
  (($# >= 2)) || fail "got $# argument(s); CONFIG and WORKDIR are needed; $usage"
  for argument in "$1" "$2"; do
    [[ -n "$argument" && "$argument" != -* ]] ||
      fail "got '$argument' instead of CONFIG or WORKDIR; $usage"
    [[ "$argument" != *://* ]] ||
      fail "got '$argument'; allowed: a path; WORKDIR must be a folder that every host sees"
  done
  [[ -f "$1" ]] || lacks "the config file $1"
  command=(.venv/bin/python -m lensjax.main
    "--config=$(readlink -m -- "$1")" "--workdir=$(readlink -m -- "$2")")
  for argument in "${@:3}"; do
    case "$argument" in
      --config=* | --workdir=*)
        fail "got '$argument'; CONFIG and WORKDIR are the first two arguments" ;;
      --[a-z]*=*) command+=("$argument") ;;
      *) fail "got '$argument'; allowed: --config.section.field=value or --mode=MODE" ;;
    esac
  done
}

read_arguments "$@"
# Which version a Python has is not asked here, since that would start it.
if [[ -n "$check" ]] && ! command -v "$root/.venv/bin/python" ${PYTHON:+"$PYTHON"} \
  python3.11 python3.12 python3.13 python3 > /dev/null; then
  lacks "Python 3.11 or newer"
fi
step cd "$root"
