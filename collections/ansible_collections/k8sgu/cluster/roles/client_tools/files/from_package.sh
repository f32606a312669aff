#!/bin/sh
# Programs of a Debian package, copied to a directory: what the package manager has installed stays as it is, and nobody is root.
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
  # One that a library is missing for does not start.
  missing=$(ldd "usr/bin/$program" 2>/dev/null | awk '/not found/ { print $1 }')
  if [ -n "$missing" ]; then
    echo "$program of $package needs $missing, which is not installed" >&2
    exit 1
  fi
done
for program; do
  install -m 0755 "usr/bin/$program" "$directory/$program"
done
