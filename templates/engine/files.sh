# Files that are exchanged whole and can be put back: what was there before is kept aside until the change is through.
set -eu
umask 077
before=/etc/docker/.machinekit-before # its presence says that a change is under way
settings=/etc/docker/daemon.json

write() { # path mode base64
  printf %s "$3" | base64 -d >"$1.machinekit"
  chmod "$2" "$1.machinekit"
  mv -f "$1.machinekit" "$1"
}

put() { # path mode base64
  # shellcheck disable=SC2174 # only the last folder can be missing
  mkdir -p -m 0755 "${1%/*}"
  back_up "$1"
  write "$@"
}

take() { # path
  back_up "$1"
  rm -f "$1"
}

back_up() { # path
  mkdir -p "$before${1%/*}"
  if [ ! -e "$before$1" ] && [ ! -e "$before$1.absent" ]; then
    if [ -e "$1" ]; then
      cp -p "$1" "$before.draft"
      mv "$before.draft" "$before$1"
    else
      : >"$before$1.absent"
    fi
  fi
}

put_back() { # path
  if [ -e "$before$1" ]; then mv -f "$before$1" "$1"; fi
  if [ -e "$before$1.absent" ]; then rm -f "$1"; fi
}
