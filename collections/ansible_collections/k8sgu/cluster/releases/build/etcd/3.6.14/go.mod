// etcd and its command line tools, compiled from the published modules.
module k8sgu.io/build/etcd

go 1.26.0

require (
	go.etcd.io/etcd/etcdctl/v3 v3.6.14
	go.etcd.io/etcd/etcdutl/v3 v3.6.14
	go.etcd.io/etcd/server/v3 v3.6.14
)
