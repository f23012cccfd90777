# To be sourced: `apt COMMAND...` runs apt-get as root, without questions.
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo -n)
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >/dev/null; }
