// cfssl and cfssljson, compiled from the published module.
module k8sgu.io/build/cfssl

go 1.26.0

require github.com/cloudflare/cfssl v1.6.5
