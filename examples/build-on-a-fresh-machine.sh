#!/bin/sh
# Build an image on a machine of its own and throw the machine away, whatever happens. For a CI job, or to see
# that a Dockerfile builds where nothing is cached.
#
#   MACHINE_DRIVER=container examples/build-on-a-fresh-machine.sh FOLDER IMAGE OUTPUT.tar
set -eu
folder=$1 image=$2 output=$3

machine=build-$$
trap 'machinekit rm -f "$machine"' EXIT
trap 'exit 130' INT TERM
machinekit create "$machine"
eval "$(machinekit env --shell sh "$machine")"
docker build --tag "$image" "$folder"
docker save --output "$output" "$image"
