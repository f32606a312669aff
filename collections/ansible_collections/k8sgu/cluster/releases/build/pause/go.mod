// The first process of every pod.
module k8sgu.io/build/pause

go 1.26.0
