// flannel's CNI plugin: the last release of the CNI project's plugins that carried it (its present home is not published as a module).
module k8sgu.io/build/flannel-cni-plugin

go 1.26.0

require (
	github.com/containernetworking/plugins v0.9.1
)
