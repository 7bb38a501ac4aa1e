#!/bin/bash
# Becomes the script named by the first argument, in mount and process namespaces of its own. When that script ends, however it
# ends, the kernel ends every process it started and drops every mount and network namespace it made.
here=$(cd "$(dirname "$0")" && pwd) || exit 2
script=$1
shift
exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash "$here/$script.sh" "$here" "$@"
