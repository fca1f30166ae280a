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
# What differs on this host.
set -eu
mkdir -p "$home"
remove_role old dG9rZW49J2l0JyInIidzICIkKGlkKSIgYGlkYCB7eyA3IH19IHslIHJhdyAlfSBcIGVuZCcK
take_file e9cb58ad74fb878e 'it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' 'file it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end removed'
put_file cc88cb0dab47a1ff '/etc/a place/it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end' 0644 root:root AP8= 'file /etc/a place/it'"'"'s "$(id)" `id` {{ 7 }} {% raw %} \ end'
put_file 52841cb6e811ed1d /etc/docker/certs.d/registry.test:5000/ca.crt 0644 root:root UEVN 'registry registry.test:5000'
keep "$home/logins" 0600 eyJyZWdpc3RyeS50ZXN0OjUwMDAiOiBudWxsfQ== # whose they are is known before they are there
mkdir -p /root/.docker
keep /root/.docker/config.json 0600 ewogICJhIjogMSwKICAiYXV0aHMiOiB7CiAgICAicmVnaXN0cnkudGVzdDo1MDAwIjogewogICAgICAiYXV0aCI6ICJZMms2YVhRbmN5QWlKQ2hwWkNraUlHQnBaR0FnZTNzZ055QjlmU0I3SlNCeVlYY2dKWDBnWENCbGJtUT0iCiAgICB9CiAgfQp9Cg==
changed 'registry registry.test:5000'
changed 'registry old'
install_role script 1d39d28dd6ecfde850f53587ce31be1073cf002828cc74fd018c504ea66ab99d 247c40375bf4b83b277b7c484c9b00efd13911c6fc2d9288f39b917c03436b64 c2VjcmV0c19UT0tFTj0naXQnIiciJ3MgIiQoaWQpIiBgaWRgIHt7IDcgfX0geyUgcmF3ICV9IFwgZW5kJwo= \
  bWFpbigpIHsKcnVuPUl5RXZZbWx1TDNOb0NtVmphRzhnSW1sMEozTWdjMlYwSUhWd0lnbz0KY2hlY2s9SXlFdlltbHVMM05vQ21WamFHOGdJbWwwSjNNZ2MyVjBJSFZ3SWdvPQojIFJ1biB0aGUgdXNlcidzIG93biBzY3JpcHQsIGFuZCBrZWVwIHRob3NlIHRoYXQgY2hlY2sgYW5kIHJlbW92ZSB3aGF0IGl0IHNldHMgdXAuCnNldCAtZXUKdW1hc2sgMDc3CnBsYWNlKCkgeyAjIG5hbWUgYmFzZTY0CiAgb3duPS92YXIvbGliL21hY2hpbmVraXQvcm9sZXMvc2NyaXB0L293bi0kMQogIHByaW50ZiAlcyAiJDIiIHwgYmFzZTY0IC1kID4iJG93bi5kcmFmdCIKICBjaG1vZCAwNzAwICIkb3duLmRyYWZ0IgogIG12IC1mICIkb3duLmRyYWZ0IiAiJG93biIKfQpwbGFjZSBydW4gIiRydW4iCnBsYWNlIGNoZWNrICIkY2hlY2siCnJtIC1mIC92YXIvbGliL21hY2hpbmVraXQvcm9sZXMvc2NyaXB0L293bi1yZW1vdmUKZXhwb3J0IEdSRUVUSU5HPSdpdCciJyIncyAiJChpZCkiIGBpZGAge3sgNyB9fSB7JSByYXcgJX0gXCBlbmQnCmV4cG9ydCBUT0tFTj0iJHNlY3JldHNfVE9LRU4iCnVtYXNrIDAyMgpjZCAvCi92YXIvbGliL21hY2hpbmVraXQvcm9sZXMvc2NyaXB0L293bi1ydW4KCn0KbWFpbiA8L2Rldi9udWxsCg== \
  bWFpbigpIHsKIyBBc2sgdGhlIHVzZXIncyBvd24gc2NyaXB0LgpzZXQgLWV1CmV4cG9ydCBHUkVFVElORz0naXQnIiciJ3MgIiQoaWQpIiBgaWRgIHt7IDcgfX0geyUgcmF3ICV9IFwgZW5kJwpjZCAvCmlmIFsgLWUgL3Zhci9saWIvbWFjaGluZWtpdC9yb2xlcy9zY3JpcHQvb3duLWNoZWNrIF07IHRoZW4gL3Zhci9saWIvbWFjaGluZWtpdC9yb2xlcy9zY3JpcHQvb3duLWNoZWNrOyBmaQoKfQptYWluIDwvZGV2L251bGwK \
  bWFpbigpIHsKIyBIYXZlIHRoZSB1c2VyJ3Mgb3duIHNjcmlwdCB0YWtlIGF3YXkgd2hhdCB0aGUgb3RoZXIgb25lIGhhcyBzZXQgdXAuCnNldCAtZXUKZXhwb3J0IEdSRUVUSU5HPSdpdCciJyIncyAiJChpZCkiIGBpZGAge3sgNyB9fSB7JSByYXcgJX0gXCBlbmQnCmV4cG9ydCBUT0tFTj0iJHtzZWNyZXRzX1RPS0VOOi19IgpjZCAvCmlmIFsgLWUgL3Zhci9saWIvbWFjaGluZWtpdC9yb2xlcy9zY3JpcHQvb3duLXJlbW92ZSBdOyB0aGVuIC92YXIvbGliL21hY2hpbmVraXQvcm9sZXMvc2NyaXB0L293bi1yZW1vdmU7IGZpCgp9Cm1haW4gPC9kZXYvbnVsbAo=
