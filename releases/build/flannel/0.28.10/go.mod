// flanneld, compiled from the published module.
module k8sgu.io/build/flannel

go 1.26.0

require (
	github.com/flannel-io/flannel v0.28.10
)
