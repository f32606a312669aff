#!/bin/sh
# Runs a command as on a controller that has nothing to build with and no tools of a cluster: hides them, in a mount namespace of its own.
#
#   controller.sh COMMAND [ARGUMENT ...]
set -eu
if [ "$1" != --hidden ]; then
    exec unshare --mount --propagation private sh "$0" --hidden "$@"
fi
shift
IFS=:
for directory in $PATH /usr/local/go/bin; do
    # apt-get: the source of last resort for cfssl.
    for program in go cfssl cfssljson kubectl apt-get; do
        if [ -e "$directory/$program" ]; then
            mount --bind /dev/null "$directory/$program"
        fi
    done
done
unset IFS
exec "$@"
