// The CNI project's plugins, compiled from the published module.
module k8sgu.io/build/cni-plugins

go 1.26.0

require (
	github.com/containernetworking/plugins v1.9.1
)
