# The demonstration: the tutorial's cluster, weir on its nodes, and what it does, each statement checked.
# The second argument is the profile that weir was built with.
. "$1/cluster.sh"
[[ $2 = release ]] && remark="weir optimised" || remark="weir not optimised"
! grep -q 'QEMU TCG' /proc/cpuinfo || remark="$remark, processor emulated"
trap 'echo "demo: interrupted"; exit 130' INT TERM HUP

number=0 held=0 broken=()
NGINX=10.105.110.237

step() {
    number=$((number + 1))
    printf '\n[%3d s] %d. %s\n' "$SECONDS" "$number" "$*"
}

# show WHERE LINE: prints a line for a shell, runs it there, prints its output. Leaves that in $output and the status in $status.
show() {
    printf '\n    %s$ %s\n' "$1" "$2"
    output=$(on "$1" bash -c "$2" 2>&1)
    status=$?
    local line
    [[ -z $output ]] || while IFS= read -r line; do
        line="    $line"
        echo "${line%"${line##*[![:space:]]}"}"
    done <<<"$output"
}

# expect SENTENCE COMMAND…: the command tells whether the sentence is true.
expect() {
    local sentence=$1
    shift
    if "$@" >/dev/null 2>&1; then
        held=$((held + 1))
        echo "  ✓ $sentence"
    else
        broken+=("step $number: $sentence")
        echo "  ✗ NOT SO, expected: $sentence"
    fi
}

succeeded() { ((status == 0)); }
failed() { ((status != 0)); }
says() { # each of these texts is in the output
    local text
    for text; do [[ $output = *"$text"* ]] || return; done
}
silent_about() {
    local text
    for text; do [[ $output != *"$text"* ]] || return; done
}

milliseconds() { # between two values of EPOCHREALTIME
    echo $(((${2/./} - ${1/./}) / 1000))
}

get() { # the line that asks a URL some times
    echo "for i in $(seq -s ' ' "$1"); do busybox wget -qO- $2; done"
}

fetch() {
    on "$1" busybox wget -qO- "$2"
}

step "Build a cluster of network namespaces: nodes ubuntu0, ubuntu1, ubuntu2 and ${#PODS[@]} pods."
build_cluster
printf '    %-8s %-15s pods %-16s %s\n' $(for node in "${NODES[@]}"; do
    echo "$node" "${ADDRESS[$node]}" "${PODS_OF[$node]}" "$(printf '%s\n' "${PODS[@]}" | sed -n "s/ $node .*//p" | paste -sd,)"
done)
everyone_answers() {
    local pod on address
    while read -r pod on address; do
        [[ $pod = client ]] || [[ $(fetch client "http://$address/") = "$pod on"* ]] || return
    done < <(printf '%s\n' "${PODS[@]}")
}
expect "the pod client reaches every other pod at its own address" within 30 everyone_answers
show client "busybox wget -qO- http://$NGINX:8080/"
expect "the Service nginx ($NGINX:8080) does not answer: nothing serves it yet" failed

step "Run weir on each node with the tutorial's manifests."
for node in "${NODES[@]}"; do
    printf '    %s$ weir run --manifests tutorial &\n' "$node"
done
start_weir
for node in "${NODES[@]}"; do
    expect "weir on $node has programmed the kernel" within 30 on "$node" weir status --brief
done

step "Ask weir on ubuntu0 what it programs."
show ubuntu0 "weir status"
expect "all is well" succeeded
expect "nginx is there with its three pods" says "$NGINX:8080" 10.244.152.96:80 10.244.25.161:80 10.244.25.162:80
show ubuntu0 "weir render --manifests tutorial >/dev/null"
expect "client-svc, an ExternalName, is noted as DNS only" says "Service default/client-svc: DNS only"

step "Ask the Service nginx, port 8080, from a pod: its three pods answer in turn, on their port 80."
show client "$(get 6 http://$NGINX:8080/)"
expect "all three backends answered" says nginx-1 nginx-2 nginx-3
expect "nobody else did" silent_about nginx-4 failed wget:
show nodeport-1 "$(get 3 http://$NGINX:8080/)"
expect "so they did for a pod on ubuntu2, whose own node balances for it" says nginx-1 nginx-2 nginx-3

step "Ask the tutorial's other Services with pods."
show client "$(get 3 http://10.111.189.98/)"
expect "nginx-nodeport answers at its cluster IP, from its three pods" says nodeport-1 nodeport-2 nodeport-3
show client "busybox wget -qO- http://10.103.175.198/"
expect "nginx-svc of namespace nginx, the target of client-svc, answers" says "web on ubuntu2"

step "Ask the Services without a selector, whose Endpoints name ubuntu0's own address."
show client "busybox wget -qO- http://10.96.237.238:3306/"
expect "mysql is served by ubuntu0 (a web server stands in for the database)" says "mysql on ubuntu0"
show client "busybox wget -qO- http://10.96.0.1:443/"
expect "kubernetes, port 443, is served by ubuntu0's port 6443" says "the API server on ubuntu0"
show nodeport-1 "busybox wget -qO- http://10.96.237.238:3306/"
expect "a pod on ubuntu2 reaches mysql as well" says "mysql on ubuntu0"

change() { # FILE becomes the manifest; the time just before is left in $changed
    show_rename "$1"
    changed=$EPOCHREALTIME
    mv "$1" tutorial/nginx-clusterip.yaml
}

show_rename() {
    diff tutorial/nginx-clusterip.yaml "$1" | sed -n 's/^[-+<>].*[{].*/    &/p'
    printf '    $ mv %s tutorial/nginx-clusterip.yaml\n' "$1"
}

first_answer() { # of this pod, in what the load writes from now on; leaves its time in $first
    local time answer until=$((SECONDS + 20))
    first=''
    while ((SECONDS < until)); do
        if read -r time answer <&"$answers"; then
            [[ $answer != "$1 on"* ]] || { first=$time; return 0; }
        else
            pause 0.02
        fi
    done
    return 1
}

step "Scale nginx out, while a client asks without pause: a fourth pod joins the EndpointSlice."
>load.log
exec {answers}<load.log
nsenter --net=/run/netns/client bash "$here/load.sh" "$NGINX" 8080 </dev/null >load.log &
load=$!
within 10 test -s load.log
sed '/10.244.25.162/a - {addresses: [10.244.0.11], conditions: {ready: true}, nodeName: ubuntu0}' \
    tutorial/nginx-clusterip.yaml >four-pods.yaml
change four-pods.yaml
first_answer nginx-4
expect "the new pod answers" test -n "$first"
[[ -z $first ]] || echo "    from the rename to its first answer: $(milliseconds "$changed" "$first") ms ($remark)"

step "Scale nginx in, the client still asking: nginx-2 and nginx-4 leave."
sed '/10.244.25.161/d; /10.244.0.11/d' tutorial/nginx-clusterip.yaml >two-pods.yaml
# It is to watch before the change is made.
exec {watch}< <(exec nsenter --net=/run/netns/ubuntu0 bash "$here/watch.sh" "$NGINX:8080" 10.244.0.11:80 10.244.25.161:80)
pause 0.5
change two-pods.yaml
followed='' left=''
read -r followed left <&"$watch"
expect "the kernel gives them no new connection" test -n "$followed"
case $left in
    gone) what="the kernel no longer listing them" ;;
    *) what="weight 0 in the kernel, for both (their connections drain)" ;;
esac
[[ -z $followed ]] || echo "    from the rename to $what: $(milliseconds "$changed" "$followed") ms ($remark)"
pause 0.5
kill "$load"
requests=$(wc -l <load.log)
expect "of the client's $requests requests during both changes, none failed" \
    bash -c '[[ $(wc -l <load.log) -gt 20 ]] && ! grep failed load.log'
show client "$(get 4 http://$NGINX:8080/)"
expect "now the other two answer" says nginx-1 nginx-3
expect "and those that left do not" silent_about nginx-2 nginx-4 wget:

step "Compare with ipvsadm."
show ubuntu0 "ipvsadm -Ln"
expect "ipvsadm lists nginx with the two pods that are left" says "$NGINX:8080" 10.244.152.96:80 10.244.25.162:80
expect "it lists nothing for the ExternalName Service" silent_about client-svc
echo "    (192.0.2.1:1 and [2001:db8::1]:1 are weir's own and reach nobody: while one virtual server exists, IPVS keeps its hooks,"
echo "    so that connections outlive the last Service.)"
for node in "${NODES[@]}"; do
    # What drains is not desired any more, and has weight 0.
    show "$node" "diff <(weir render -o ipvsadm --manifests tutorial 2>/dev/null | sort) <(ipvsadm -Sn | sed 's/ *\$//; / -w 0\$/d' | sort) && echo same"
    expect "$node's kernel holds what the manifests ask for" succeeded
done

step "Stop weir on ubuntu0: the kernel goes on without it; then remove what weir made."
printf '    ubuntu0$ kill %%1\n'
kill "${WEIR[ubuntu0]}"
wait "${WEIR[ubuntu0]}"
status=$?
expect "weir ended with 0" succeeded
show client "$(get 2 http://$NGINX:8080/)"
expect "nginx still answers" says nginx-1 nginx-3
show ubuntu0 "weir cleanup"
expect "cleanup succeeded" succeeded
show ubuntu0 "ipvsadm -Ln"
expect "nothing is left in IPVS" silent_about TCP
expect "nor is the device" on ubuntu0 bash -c '! ip link show dummy-weir0'

echo
if ((${#broken[@]} == 0)); then
    echo "All $held statements held."
else
    echo "$held statements held, ${#broken[@]} did not:"
    printf '  ✗ %s\n' "${broken[@]}"
    for node in "${NODES[@]}"; do
        echo "The last lines of weir's log on $node:"
        tail -n 15 "$node.log" | sed 's/^/    /'
    done
    exit 1
fi
