# How files and roles get on the host and off it; each may be cut off anywhere and run again.
set -eu
umask 077
home=/var/lib/machinekit
draft=
trap 'if [ -n "$draft" ]; then rm -f "$draft"; fi' EXIT

changed() { printf 'machinekit:changed=%s\n' "$1"; }

fail() { # why
  printf '%s\n' "$1"
  exit 1
}

draft() { # path mode base64
  draft=$1.machinekit
  printf %s "$3" | base64 -d >"$draft"
  chmod "$2" "$draft"
}

settle() { # path
  mv -f "$draft" "$1"
  draft=
}

keep() { # path mode base64
  draft "$@"
  settle "$1"
}

remember() { # path text
  printf '%s\n' "$2" >"$1.draft"
  mv -f "$1.draft" "$1"
}

put_file() { # key path mode owner base64 name
  entry=$home/files/$1
  if [ -d "$2" ] && [ ! -L "$2" ]; then fail "$2 is a folder on the host, so it cannot be a file"; fi
  if [ ! -d "$entry" ]; then # what was there before us is kept before it is touched
    rm -rf "$entry.draft"
    mkdir -p "$entry.draft"
    printf %s "$2" >"$entry.draft/path"
    if [ -e "$2" ] || [ -L "$2" ]; then cp -a "$2" "$entry.draft/before"; fi
    mv "$entry.draft" "$entry"
  fi
  (umask 022 && mkdir -p "${2%/*}/")
  draft "$2" 0600 "$5"
  chown "$4" "$draft" || fail "$2 cannot belong to $4"
  chmod "$3" "$draft"
  if [ ! -L "$2" ] && cmp -s "$draft" "$2" && [ "$(stat -c '%a %u:%g' "$draft")" = "$(stat -c '%a %u:%g' "$2")" ]; then
    rm -f "$draft"
    draft=
  else
    settle "$2"
    changed "$6"
  fi
}

take_file() { # key path name
  entry=$home/files/$1
  if [ -e "$entry/before" ] || [ -L "$entry/before" ]; then
    draft=$2.machinekit
    cp -a "$entry/before" "$draft"
    settle "$2"
  else
    rm -f "$2"
  fi
  rm -rf "$entry"
  changed "$3"
}

run_role() { # secrets and script in base64
  {
    printf %s "$1" | base64 -d
    printf %s "$2" | base64 -d
  } | sh -s
}

install_role() { # name identity digest secrets install check remove
  state=$home/roles/$1
  if [ "$(cat "$state/digest" 2>/dev/null)" = "$3" ] && run_role '' "$6" >/dev/null 2>&1; then
    return 0 # what was wrong has passed, such as after a start
  fi
  if [ -e "$state/identity" ] && [ "$(cat "$state/identity")" != "$2" ]; then remove_role "$1" "$4"; fi
  mkdir -p "$state"
  rm -f "$state/digest"
  keep "$state/remove" 0600 "$7" # from here on it can be taken away again, whoever knows the role then
  remember "$state/identity" "$2"
  if ! run_role "$4" "$5"; then fail "role $1 cannot be installed: its last lines are above"; fi
  if ! run_role '' "$6"; then fail "role $1 is installed and not as it should be: what is wrong is above"; fi
  remember "$state/digest" "$3"
  changed "role $1"
}

remove_role() { # name secrets
  state=$home/roles/$1
  rm -f "$state/digest"
  if ! run_role "$2" "$(base64 "$state/remove" | tr -d '\n')"; then
    fail "role $1 cannot be removed: its last lines are above"
  fi
  rm -rf "$state"
  changed "role $1 removed"
}
