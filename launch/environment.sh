# Sourced by the other scripts: makes .venv with Python 3.11 or newer and installs what is missing.
# Usage: . launch/environment.sh REQUIREMENTS_FILE [EXTRA ...]

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "lensjax needs Python 3.11 or newer with venv; set PYTHON to its path" >&2
  return 1
}

# The packages are installed again when a file that names them has changed.
install_missing() {
  local requirements="$1" extras="$2" wanted marker
  marker=".venv/installed-$(basename "$requirements")${extras:+-$extras}"
  wanted=$(cat "$requirements" pyproject.toml | cksum)
  if [[ -f "$marker" && "$(cat "$marker")" == "$wanted" ]]; then
    return
  fi
  echo "installing $requirements${extras:+ and the extra $extras} into .venv"
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet -r "$requirements" -e ".${extras:+[$extras]}"
  echo "$wanted" > "$marker"
}

python_found=$(find_python)
[[ -x .venv/bin/python ]] || "$python_found" -m venv .venv
install_missing "$1" "${2:-}"
# Huge pages: on CPU, XLA's fresh buffers are then a fifth to a quarter cheaper.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
