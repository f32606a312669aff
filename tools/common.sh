# What the scripts beside it share: the names of the lab and the cluster, the project's programs first on PATH, and root.
# shellcheck shell=bash disable=SC2034

# A word as a shell reads it, to be copied: quoted where it must be.
quoted() {
  if [[ $1 =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then printf '%s' "$1"; else printf '%s' "${1@Q}"; fi
}

# Where the cluster of a state directory is: `lab NAME`, or an account and a region, or nothing where that is not known.
place_of() {
  local arn account region
  IFS=$'\t' read -r arn account region < <(jq -r '[.arn, .account, .region] | @tsv' "$1/place.json" 2>/dev/null) || return 0
  if [[ $arn =~ :user/([a-z0-9-]+)/lab-admin$ ]]; then
    echo "lab ${BASH_REMATCH[1]}"
  elif ! [[ $arn =~ :user/lab-admin$ ]]; then # else a lab that was made before they told their names
    echo "account $account, region $region"
  fi
}

# K8SGU_LAB says which lab, else it is `default`. A shell that `ec2lab env` pointed at another one must say which it means.
if [ -z "${K8SGU_LAB:-}" ] && [ "${EC2LAB_NAME:-default}" != default ]; then
  echo "K8SGU_LAB is not set, which means lab default, but this shell is pointed at lab $EC2LAB_NAME (EC2LAB_NAME)." >&2
  echo "Say which, before the command: K8SGU_LAB=default or K8SGU_LAB=$(quoted "$EC2LAB_NAME")" >&2
  exit 1
fi
lab=${K8SGU_LAB:-default}
# K8SGU_CLUSTER says which cluster, else the inventory does.
description=inventories/lab/group_vars/all/cluster.yml
cluster=${K8SGU_CLUSTER:-$(sed -nE "s/^k8sgu_cluster_name:[[:space:]]*[\"']?([a-z0-9-]+)[\"']?[[:space:]]*(#.*)?$/\1/p" "$description")}
if ! [[ $cluster =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]]; then
  echo "K8SGU_CLUSTER (or k8sgu_cluster_name in $description) is '$cluster': a cluster's name is lower-case letters, digits and hyphens" >&2
  exit 1
fi
state=$PWD/.state/$cluster
named=(-e "k8sgu_cluster_name=$cluster")
export PATH="$PWD/.venv/bin:$PATH" K8SGU_LAB=$lab
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  echo "The lab boots machines and makes networks, which only root may do; sudo asks for your password once." >&2
  as_root=(sudo)
  # Behind a proxy, which sudo forgets; by its name, since a command line that holds a password is everybody's to read.
  for name in HTTP_PROXY http_proxy HTTPS_PROXY https_proxy NO_PROXY no_proxy EC2LAB_NAME EC2LAB_MIRROR_DIR EC2LAB_DISTRIBUTION XDG_CACHE_HOME; do
    [ -z "${!name:-}" ] || as_root+=("--preserve-env=$name")
  done
  as_root+=(env "PATH=$PATH" "HOME=$HOME")
fi
