#!/bin/sh
# One virtual machine, from its disk to QEMU. Machines starts it; the daemon may come and go meanwhile. Its arguments are
# QEMU's command line. All of it stays one process, whose id and cgroups tell the machine.
set -eu

for directory in $EC2LAB_CGROUPS; do
    echo $$ >"$directory/cgroup.procs"
done
cd "$EC2LAB_DIR"
if [ -d seed ]; then
    # In a mount namespace of its own: however it ends, the mount is gone with it. Killed in between, it is done again.
    unshare --mount --propagation slave sh -euc '
        mkdir -p root
        mount -t ext4 -o "loop,offset=$EC2LAB_OFFSET,noatime" disk.raw root
        cp -a --remove-destination seed/. root/
        umount root
        rmdir root
    '
    rm -rf seed
fi
rm -f qmp agent
exec nsenter --net="$EC2LAB_NETNS" "$@"
