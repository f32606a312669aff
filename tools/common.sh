# What the scripts beside it share: the names of the lab and the cluster, the project's programs first on PATH, and root.
# shellcheck shell=bash disable=SC2034
lab=${K8SGU_LAB:-default}
cluster=${K8SGU_CLUSTER:-demo}
named=(-e "k8sgu_cluster_name=$cluster")
export PATH="$PWD/.venv/bin:$PATH" K8SGU_LAB=$lab
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  echo "The lab boots machines and makes networks, which only root may do; sudo asks for your password once." >&2
  as_root=(sudo)
  # Behind a proxy, which sudo forgets; by its name, since a command line that holds a password is everybody's to read.
  for name in HTTP_PROXY http_proxy HTTPS_PROXY https_proxy NO_PROXY no_proxy; do
    [ -z "${!name:-}" ] || as_root+=("--preserve-env=$name")
  done
  as_root+=(env "PATH=$PATH" "HOME=$HOME")
fi
