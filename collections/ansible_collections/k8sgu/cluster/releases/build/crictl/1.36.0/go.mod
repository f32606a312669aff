// crictl, compiled from the published module.
module k8sgu.io/build/crictl

go 1.26.2

require sigs.k8s.io/cri-tools v1.36.0
