// CoreDNS with upstream's own list of plugins.
module k8sgu.io/build/coredns

go 1.26.0

require (
	github.com/coredns/coredns v1.14.2
)
