# The tutorial's cluster, made of namespaces. To be sourced, with $1 the directory of weir, of the manifests and of these scripts.
#
# A node is a namespace for network, mounts and host name, so that each has its own /run/weir. The nodes share a bridge. A
# pod is a network namespace with a link to its node, routed and not bridged, with a web server that answers with the pod's name.
here=$1
unset NODE_NAME WEIR_LOG
export PATH=$here:$PATH LANG=C.UTF-8

NODES=(ubuntu0 ubuntu1 ubuntu2)
declare -A ADDRESS=([ubuntu0]=192.168.23.99 [ubuntu1]=192.168.23.98 [ubuntu2]=192.168.23.97)
declare -A PODS_OF=([ubuntu0]=10.244.0.0/24 [ubuntu1]=10.244.25.0/24 [ubuntu2]=10.244.152.0/24)
declare -A WEIR=() # process of each node's `weir run`

# name, node, address: the addresses are those of the tutorial's EndpointSlices; client and nginx-4 are ours.
PODS=(
    "client ubuntu0 10.244.0.10"
    "nginx-1 ubuntu2 10.244.152.96"
    "nginx-2 ubuntu1 10.244.25.161"
    "nginx-3 ubuntu1 10.244.25.162"
    "nginx-4 ubuntu0 10.244.0.11"
    "nodeport-1 ubuntu2 10.244.152.95"
    "nodeport-2 ubuntu1 10.244.25.159"
    "nodeport-3 ubuntu1 10.244.25.160"
    "web ubuntu2 10.244.152.97"
)

exec {never}<> <(:)
pause() { # without starting a program
    read -rt "$1" -u "$never" || true
}

fatal() {
    echo "demo: $*" >&2
    exit 2
}

on() {
    bash "$here/on.sh" "$@"
}

# within SECONDS COMMAND…: repeats the command until it succeeds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        pause 0.1
    done
}

batch() { # of commands for ip, on stdin
    ip "$@" -batch - || fatal "ip cannot build the cluster; are bash and iproute2 complete, and are we root?"
}

build_cluster() {
    mount -t tmpfs -o mode=755 demo /run || fatal "cannot mount a private /run"
    mkdir /run/netns /run/weir /run/demo /run/demo/www
    cd /run/demo || fatal "no /run/demo"
    cp -r "$here/tutorial" tutorial || fatal "cannot copy the manifests"
    ln -s "$here/on.sh" /run/demo/on && export PATH=/run/demo:$PATH
    make_namespaces
    local node
    for node in "${NODES[@]}"; do start_node "$node"; done
    for node in "${NODES[@]}"; do
        within 20 test -e "$node/ready" || fatal "$node did not come up"
    done
    start_servers
}

make_namespaces() {
    local node other pod on address
    {
        printf 'netns add %s\n' lan "${NODES[@]}"
        printf 'netns add %s\n' "${PODS[@]%% *}"
    } | batch
    {
        echo "link add lan type bridge"
        echo "link set lan up"
        for node in "${NODES[@]}"; do
            echo "link add $node type veth peer name eth0 netns $node"
            echo "link set $node master lan up"
        done
    } | batch -n lan
    for node in "${NODES[@]}"; do
        {
            echo "link set lo up"
            echo "addr add ${ADDRESS[$node]}/24 dev eth0"
            echo "link set eth0 up"
            for other in "${NODES[@]}"; do
                [[ $other = "$node" ]] || echo "route add ${PODS_OF[$other]} via ${ADDRESS[$other]}"
            done
            while read -r pod on address; do
                [[ $on = "$node" ]] || continue
                echo "link add $pod type veth peer name eth0 netns $pod"
                echo "addr add 169.254.1.1/32 dev $pod scope link"
                echo "link set $pod up"
                echo "route add $address dev $pod src ${ADDRESS[$node]}"
            done < <(printf '%s\n' "${PODS[@]}")
        } | batch -n "$node"
    done
    while read -r pod on address; do
        batch -n "$pod" <<END
link set lo up
addr add $address/32 dev eth0
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1 dev eth0
END
    done < <(printf '%s\n' "${PODS[@]}")
}

start_node() {
    mkdir "$1"
    # `ip netns exec` gives it a mount namespace as well.
    ip netns exec "$1" unshare --uts bash -c '
        echo "$0" >/proc/sys/kernel/hostname
        mount --bind "/run/demo/$0" /run/weir
        sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
            net.ipv4.vs.conntrack=1 || exit
        >/run/weir/ready
        exec sleep infinity' "$1" </dev/null &
    echo $! >"$1.pid"
}

start_servers() {
    local pod on address
    while read -r pod on address; do
        [[ $pod = client ]] || serve "$pod" 80 "$pod on $on ($address)"
        # A client that nobody answers is told so after three seconds.
        ip netns exec "$pod" sysctl -qw net.ipv4.tcp_syn_retries=1
    done < <(printf '%s\n' "${PODS[@]}")
    serve ubuntu0 "${ADDRESS[ubuntu0]}:3306" "mysql on ubuntu0"
    serve ubuntu0 "${ADDRESS[ubuntu0]}:6443" "the API server on ubuntu0"
}

serve() { # where, port, answer
    local directory="/run/demo/www/$1-${2##*:}"
    mkdir "$directory"
    echo "$3" >"$directory/index.html"
    nsenter "--net=/run/netns/$1" busybox httpd -f -p "$2" -h "$directory" </dev/null &
}

start_weir() { # on every node
    local node
    for node in "${NODES[@]}"; do
        # Not through a function, so that it is weir that gets the signals.
        bash "$here/on.sh" "$node" weir run --manifests tutorial </dev/null 2>"$node.log" &
        WEIR[$node]=$!
    done
}
