# Sourced by every run script: what they share. Installs what is missing, fetches Highway, configures builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

default_compiler=clang  # the one place that decides; see README for the measurement behind it
declare -A cxx=([clang]=clang++-19 [gcc]=g++) cc=([clang]=clang-19 [gcc]=gcc)

# progress "text": one line for each step of $steps.
steps=0 step=0 started=$SECONDS
progress() { step=$((step + 1)); echo "== [$step/$steps] $* ($((SECONDS - started)) s)"; }
die() { echo "$*" >&2; exit 1; }

# install <Debian package>...: those that are missing, and nothing when none is.
install() {
  local missing=() package
  if ! command -v dpkg-query apt-get >/dev/null; then
    echo "not a Debian system, so nothing is installed; needed are Debian's: $*"
    return
  fi
  for package; do
    [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == *' installed' ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  local as_root=()
  if [[ $EUID -ne 0 ]]; then
    command -v sudo >/dev/null || die "please run as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  echo "installing ${missing[*]}"
  [[ -n ${apt_is_updated:-} ]] || "${as_root[@]}" apt-get update -qq
  export apt_is_updated=yes  # for the scripts that this one runs, too
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# install_build: all that a native build of library, tests, benchmarks and tools needs.
install_build() {
  install clang-19 g++ pkg-config python3 curl ca-certificates dpkg-dev \
    libtbb-dev libgtest-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev
  command -v meson >/dev/null || install meson
  command -v ninja >/dev/null || install ninja-build
  pkg-config --atleast-version=1.3 libhwy 2>/dev/null || bash .ci/fetch highway
}

# configure <directory> <compiler, or cross file> <meson options>...: a build directory that is set up anew
# when it was set up differently, and left alone otherwise.
configure() {
  local directory=$1 compiler=$2 how
  shift 2
  local options=(-Dwerror=true "$@")
  if [[ -n ${cxx[$compiler]:-} ]]; then
    export CXX=${cxx[$compiler]} CC=${cc[$compiler]}
  else
    unset CXX CC
    options+=(--cross-file "$compiler")
  fi
  how="meson $(meson --version) CXX=${CXX:-} CC=${CC:-} ${options[*]} $(cat "$compiler" 2>/dev/null || true)"
  if [[ $(cat "$directory/how" 2>/dev/null) != "$how" ]]; then
    rm -rf "$directory" && mkdir -p "$directory"
    meson setup "$directory" "${options[@]}" >"$directory/log" 2>&1 || { cat "$directory/log"; exit 1; }
    echo "$how" >"$directory/how"
  fi
}

# build <directory> [target...]: silent unless it fails.
build() {
  nice ninja -C "$1" "${@:2}" >"$1/log" 2>&1 || { grep -v '^\[' "$1/log"; exit 1; }
}

# make_venv <name> <requirements>: sets venv. Each line of the file is installed by itself, once; a line
# that fails is tried again by the next run.
make_venv() {
  venv=build/venv-$1
  if [[ ! -x $venv/bin/pip ]]; then
    python3 -m venv "$venv" 2>/dev/null || { install python3-venv && python3 -m venv --clear "$venv"; }
  fi
  local line
  while read -r line; do
    if [[ -z $line || $line == '#'* ]] || grep -qxF "$line" "$venv/installed" 2>/dev/null; then continue; fi
    echo "installing $line" >&2
    # shellcheck disable=SC2086 # a line may name several packages
    if "$venv/bin/pip" install --quiet --disable-pip-version-check $line >"$venv/pip.log" 2>&1; then
      echo "$line" >>"$venv/installed"
    else
      echo "  does not install here: $(grep ERROR "$venv/pip.log" | tail -n 1)" >&2
    fi
  done <"$2"
}
