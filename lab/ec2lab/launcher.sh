#!/bin/sh
# One machine, from its disk to its end. Machines starts it; the daemon may come and go meanwhile.
#
#   launcher.sh start      joins the node's cgroups and the VPC's network namespace, mounts the disk
#   launcher.sh boot       boots the node once, in a fresh network namespace; a reboot comes here again
#
# All of it stays one process, so that its id and its cgroups tell the machine. Its mounts are in a mount namespace of
# its own: however it ends, they are gone with it. Settings come as EC2LAB_* from the environment.
set -eu

case "$1" in
start)
    for directory in $EC2LAB_CGROUPS; do
        echo $$ >"$directory/cgroup.procs"
    done
    # slave: what the host unmounts later is unmounted here too
    exec nsenter --net="$EC2LAB_NETNS" unshare --mount --propagation slave sh "$0" mount
    ;;

mount)
    # What systemd-nspawn keeps about its containers goes with this mount namespace instead of staying in the host's /run.
    mkdir -p /run/systemd
    mount -t tmpfs -o mode=0755 ec2lab /run/systemd
    cd "$EC2LAB_DIR"
    mkdir -p root
    # The host's memory holds what is written until the kernel writes it out: a crash of the node loses nothing, and a
    # node's fsync does not wait for the host's disk.
    mount -t ext4 -o loop,noatime,barrier=0,errors=continue disk.ext4 root
    mkdir -p root/.ec2lab/usr root/.ec2lab/work
    chmod 0755 root/.ec2lab root/.ec2lab/usr
    mount -t overlay -o "lowerdir=$EC2LAB_USR,upperdir=root/.ec2lab/usr,workdir=root/.ec2lab/work" usr root/usr
    if [ -d seed ]; then
        cp -a --remove-destination seed/. root/
        sync -f root
        rm -rf seed
    fi
    exec unshare --net sh "$0" boot
    ;;

boot)
    cd "$EC2LAB_DIR"
    nsenter --net="$EC2LAB_NETNS" ip link set dev "$EC2LAB_PLUG" netns $$ name "$EC2LAB_DEVICE"
    ip -batch - <<END
link set lo up
addr add $EC2LAB_ADDRESS broadcast + dev $EC2LAB_DEVICE
link set $EC2LAB_DEVICE up
route add default via $EC2LAB_ROUTER dev $EC2LAB_DEVICE
END
    # On cgroup v2 the node gets a group without this process in it. What the boot before made in there is in the way.
    for directory in $EC2LAB_NODE_CGROUPS; do
        find "$directory" -depth -type d -delete
        mkdir "$directory"
    done
    # The node makes its devices from this list, see recipe/node/usr/lib/ec2lab/host.
    rm -f root/.ec2lab/devices
    if [ -s devices ]; then
        install -m 0644 devices root/.ec2lab/devices
    fi
    status=0
    (
        for directory in $EC2LAB_NODE_CGROUPS; do
            echo 0 >"$directory/cgroup.procs"
        done
        exec systemd-nspawn --quiet --boot --directory=root --machine="$EC2LAB_ID" --hostname="$EC2LAB_HOSTNAME" \
            --uuid="$EC2LAB_UUID" --register=no --keep-unit --network-namespace-path=/proc/self/ns/net \
            --capability=all --system-call-filter='@keyring bpf perf_event_open' --bind=/dev/kmsg \
            --resolv-conf=off --timezone=off --link-journal=no --console=read-only
    ) || status=$?
    if [ "$status" = 133 ]; then
        # A reboot: the cable goes back to the VPC and the node starts with nothing that it had set up in its network.
        ip link set dev "$EC2LAB_DEVICE" down
        ip link set dev "$EC2LAB_DEVICE" netns "$(basename "$EC2LAB_NETNS")" name "$EC2LAB_PLUG"
        exec nsenter --net="$EC2LAB_NETNS" unshare --net sh "$0" boot
    fi
    # Done here and not left to the kernel, which takes its time: whoever waits for this process finds no remains.
    ip link delete dev "$EC2LAB_DEVICE" || true
    umount root/usr root || true
    exit "$status"
    ;;
esac
