# Shared by start and test: the virtual environment and the system libraries. Sourced, never run.
# Needs: root (the checkout), extras ("" or "[test]").

say() { printf '%s\n' "$*" >&2; }

apt_install() { # apt_install WHY PACKAGE...
  local why=$1; shift
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing system packages ($why): $*"
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1; then
      # The package lists of a fresh machine are empty or old.
      apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null
    fi
  else
    say "Missing system packages ($why). Run this once, then start again:"
    say "  sudo apt-get install -y --no-install-recommends $*"
    return 1
  fi
}

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$name"; return 0
    fi
  done
  return 1
}

make_environment() {
  local stamp_key stamp python
  stamp_key=$(cat "$root/packaging/constraints.txt" "$root/pyproject.toml" | cksum | tr ' ' '-')
  stamp="$root/.venv/.quantstudio${extras:+-test}-$stamp_key"
  [ -e "$stamp" ] && return 0

  if [ ! -x "$root/.venv/bin/python" ] || ! "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! python=$(find_python); then
      apt_install "Python 3.11 or newer" python3.11 python3.11-venv || return 1
      python=$(find_python) || { say "No Python 3.11 or newer was found."; return 1; }
    fi
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      apt_install "Python virtual environments" "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" || return 1
    fi
    say "Making .venv with $("$python" --version) ..."
    rm -rf "$root/.venv"
    "$python" -m venv "$root/.venv" || return 1
  fi
  say "Installing the pinned packages (once; a few minutes) ..."
  # setuptools first: the checkout itself is installed without build isolation, so nothing unpinned is fetched.
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/packaging/constraints.txt" setuptools || return 1
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation \
    -c "$root/packaging/constraints.txt" -e "$root$extras" || return 1
  rm -f "$root"/.venv/.quantstudio*"-$stamp_key"
  : > "$stamp"
  # The test set contains the plain one.
  if [ -n "$extras" ]; then : > "$root/.venv/.quantstudio-$stamp_key"; fi
}

# No pipe into grep -q: it stops reading at the first match, and pipefail takes ldconfig's broken pipe for a miss.
known_libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)
has_library() { [[ $known_libraries == *"$1"* ]]; }

# Found by dropping one package at a time from a minimal Debian 12 root. Qt blames xcb-cursor0 for several of them.
make_libraries() { # make_libraries offscreen|window
  command -v apt-get >/dev/null || return 0
  local missing=()
  has_library libGL.so.1 || missing+=(libgl1)
  has_library libEGL.so.1 || missing+=(libegl1)
  has_library libxkbcommon.so.0 || missing+=(libxkbcommon0)
  has_library libfontconfig.so.1 || missing+=(libfontconfig1)
  has_library libdbus-1.so.3 || missing+=(libdbus-1-3)
  has_library libglib-2.0.so.0 || missing+=("$(glib_package)")
  if [ "$1" = window ]; then
    has_library libxcb-cursor.so.0 || missing+=(libxcb-cursor0)
    has_library libxcb-icccm.so.4 || missing+=(libxcb-icccm4)
    has_library libxcb-keysyms.so.1 || missing+=(libxcb-keysyms1)
    has_library libxcb-shape.so.0 || missing+=(libxcb-shape0)
    has_library libxkbcommon-x11.so.0 || missing+=(libxkbcommon-x11-0)
    [ -n "$(find /usr/share/fonts /usr/local/share/fonts "${HOME:-/nonexistent}/.local/share/fonts" -iname 'inter*' -print -quit 2>/dev/null)" ] || missing+=(fonts-inter)
  fi
  [ ${#missing[@]} = 0 ] || apt_install "libraries of the window" "${missing[@]}"
}

glib_package() { # Ubuntu 24.04 and Debian 13 renamed it
  if apt-cache show libglib2.0-0t64 >/dev/null 2>&1; then echo libglib2.0-0t64; else echo libglib2.0-0; fi
}
