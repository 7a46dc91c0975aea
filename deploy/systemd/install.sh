#!/bin/bash
# Puts the units and configurations where systemd looks for them. Run it as root; read it first. Written by `beamsieve
# deploy`. It starts nothing, and leaves the environment file alone where there is one. DESTDIR=… tries it elsewhere.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
units=$root/etc/systemd/system
configs=$root@CONFIG_DIR@

place() { # FILE FOLDER: leaves a file alone that is in its place already
  [ "$1" -ef "$2/$(basename "$1")" ] || install -m 0644 "$1" "$2/"
}

if [ -z "$root" ] && ! id -u @USER@ >/dev/null 2>&1; then
  useradd --system --user-group --home-dir @DATA@ --no-create-home --shell /usr/sbin/nologin @USER@
fi
install -d "$units" "$configs"
# shellcheck disable=SC2043  # there may be one
for folder in @FOLDERS@; do
  if [ -z "$root" ]; then
    [ -d "$folder" ] || install -d -m 0750 -o @USER@ -g @GROUP@ "$folder"
  else
    install -d -m 0750 "$root$folder"
  fi
done
for file in "$here"/../config/*.yaml; do place "$file" "$configs"; done
[ -e "$configs/beamsieve.env" ] || place "$here/beamsieve.env" "$configs"
place "$here/beamsieve@.service" "$units"
for folder in "$here"/beamsieve@*.service.d; do
  install -d "$units/$(basename "$folder")"
  place "$folder/paths.conf" "$units/$(basename "$folder")"
done
[ -n "$root" ] || systemctl daemon-reload
echo "installed; start with: systemctl enable --now @UNITS@"
