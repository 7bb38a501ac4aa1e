# The demonstration's cluster with weir running, and in it a shell on ubuntu0, or another command. Commands of a shell come from the
# file `stdin` beside this one if it is there, else from the terminal.
. "$1/cluster.sh"
shift
interactive=true
[[ ! -e $here/stdin ]] || interactive=false
say() { # only to a person
    ! $interactive || echo "$@"
}

say "Building the cluster …"
build_cluster
start_weir
for node in "${NODES[@]}"; do
    within 30 on "$node" weir status --brief || fatal "weir on $node does not converge; it said: $(<"$node.log")"
done
if ! $interactive; then
    on ubuntu0 "${@:-bash}" <"$here/stdin"
    exit
fi
cat <<END

You are root on ubuntu0, a node of the tutorial's cluster; weir runs on ubuntu0, ubuntu1 and ubuntu2. Try:
    weir status
    on client busybox wget -qO- http://10.105.110.237:8080/     the Service nginx, from a pod
    vi tutorial/nginx-clusterip.yaml                            take an endpoint away, then look at weir status
    ipvsadm -Ln; ip addr show dummy-weir0                       what the kernel has
    on ubuntu2 weir status                                      on another node
    tail -f ubuntu0.log                                         what weir says
\`exit\` ends the virtual machine.

END
# A shell that is none of a person's drops PS1 from its environment, and on.sh is one.
echo "PS1='\\h:\\w\\\$ ' HISTFILE=" >bashrc
(($# > 0)) || set -- bash --rcfile bashrc
on ubuntu0 "$@"
