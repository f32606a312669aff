// containerd, its shim for runc and ctr, compiled from the published module.
module k8sgu.io/build/containerd

go 1.26.3

require github.com/containerd/containerd/v2 v2.3.4
