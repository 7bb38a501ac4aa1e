#!/bin/bash
# on NAME COMMAND…: runs a command on a node (its network, host name and /run/weir), or in a pod (its network).
name=$1
shift
if [[ -r /run/demo/$name.pid ]]; then
    read -r pid <"/run/demo/$name.pid"
    exec nsenter --target "$pid" --net --mount --uts --wdns=/run/demo "$@"
elif [[ -e /run/netns/$name ]]; then
    exec nsenter "--net=/run/netns/$name" "$@"
fi
echo "on: there is no node or pod $name; there are: $(cd /run/netns && echo *)" >&2
exit 2
