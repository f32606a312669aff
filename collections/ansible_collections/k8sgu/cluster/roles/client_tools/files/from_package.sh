#!/bin/sh
# Copies programs of a Debian package to a directory, without installing the package and without root.
#     from_package.sh PACKAGE DIRECTORY PROGRAM...
set -eu
package=$1 directory=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"
apt-get -qq download "$package"
dpkg-deb --extract ./*.deb .
for program; do
  # A program does not start if one of its libraries is missing.
  missing=$(ldd "usr/bin/$program" 2>/dev/null | awk '/not found/ { print $1 }')
  if [ -n "$missing" ]; then
    echo "$program of $package needs $missing, which is not installed" >&2
    exit 1
  fi
done
for program; do
  install -m 0755 "usr/bin/$program" "$directory/$program"
done
