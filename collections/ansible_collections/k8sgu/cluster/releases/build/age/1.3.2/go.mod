// age, compiled from the published module.
module k8sgu.io/build/age

go 1.25.0

require filippo.io/age v1.3.2
