// Pins flannel's module; its own go.mod and go.sum, which are in it, pin the rest.
module k8sgu.io/build/flannel

go 1.26.0

require github.com/flannel-io/flannel v0.28.10
