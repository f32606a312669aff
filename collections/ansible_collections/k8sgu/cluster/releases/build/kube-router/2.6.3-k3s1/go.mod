// kube-router, compiled from k3s-io's published module.
module k8sgu.io/build/kube-router

go 1.26.0

require (
	github.com/cloudnativelabs/kube-router/v2 v2.6.3
	google.golang.org/genproto v0.0.0-20261026165753-2ffab32bce7e
)

// Upstream's repository is not published as a module; k3s-io's copy of it is, under another path.
replace github.com/cloudnativelabs/kube-router/v2 => github.com/k3s-io/kube-router/v2 v2.6.3-k3s1
