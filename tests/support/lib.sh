# shellcheck shell=bash
# What the test scripts share: ports, packages, and stages with a table at the end. Source it.

# Whether nothing listens on a loopback port.
port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Prints a free loopback port below the ephemeral range: in it, any client's connection may take the
# port while what listens there is down.
free_port() {
    local low=10000 high=32000 ephemeral port
    if read -r ephemeral _ 2>/dev/null </proc/sys/net/ipv4/ip_local_port_range && ((ephemeral > low + 1000)); then
        high=$((ephemeral < high ? ephemeral : high))
    fi
    for _ in {1..100}; do
        port=$((low + (RANDOM * 32768 + RANDOM) % (high - low)))
        if port_is_free "$port"; then
            echo "$port"
            return
        fi
    done
    echo "failed to find a free port between $low and $high" >&2
    return 1
}

# packages NAME...: installs Debian packages, or tells what to type where we may not.
packages() {
    if ! command -v apt-get >/dev/null; then
        echo "this machine has no apt-get; please install what these Debian packages hold: $*" >&2
        return 1
    fi
    if [[ $(id -u) -ne 0 ]]; then
        printf 'some packages are missing; please run:\n\n    sudo apt-get install -y --no-install-recommends %s\n\n' "$*" >&2
        return 1
    fi
    echo "installing: $*"
    (
        # A freshly installed RabbitMQ must not start as a service of the system.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
            apt-get update -qq
            apt-get install -y -qq --no-install-recommends "$@" >/dev/null
        }
    )
}

# Prints a Python that can import all of these modules. Debian's packages serve Debian's own Python,
# which is not always the first on the PATH.
python_with() {
    local python module script=""
    for module in "$@"; do
        script+="import $module;"
    done
    for python in "${PYTHON:-python3}" /usr/bin/python3; do
        if "$python" -c "$script" 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

# Exit code of a stage that has nothing to run yet. It is reported, and it is not a pass.
# shellcheck disable=SC2034 # used by those who source this
readonly NOT_THERE=77

stage_names=()
stage_seconds=()
stage_results=()
stages_failed=0

# stage NAME COMMAND...: runs it, unless an earlier one failed, and keeps time and outcome.
stage() {
    local name=$1 began=$SECONDS code=0
    shift
    stage_names+=("$name")
    if ((stages_failed > 0)) && [[ -z ${STAGES_GO_ON:-} ]]; then
        stage_seconds+=("-")
        stage_results+=("skipped")
        return
    fi
    printf '\n=== %s\n' "$name"
    # In a subshell of its own, and not in a condition, so that `set -e` holds inside.
    set +e
    (
        set -e
        "$@"
    )
    code=$?
    set -e
    stage_seconds+=($((SECONDS - began)))
    case $code in
        0) stage_results+=("passed") ;;
        "$NOT_THERE") stage_results+=("not there") ;;
        *)
            stage_results+=("FAILED ($code)")
            stages_failed=$((stages_failed + 1))
            ;;
    esac
}

# Prints the table, and is true when every stage passed.
stage_table() {
    local i passed=0
    printf '\n%-14s %8s   %s\n' stage seconds result
    for i in "${!stage_names[@]}"; do
        printf '%-14s %8s   %s\n' "${stage_names[i]}" "${stage_seconds[i]}" "${stage_results[i]}"
        [[ ${stage_results[i]} != passed ]] || passed=$((passed + 1))
    done
    printf '%-14s %8s\n\n' total "$SECONDS"
    printf 'stages: %d passed, %d failed, %d not run\n' "$passed" "$stages_failed" \
        $((${#stage_names[@]} - passed - stages_failed))
    ((passed == ${#stage_names[@]}))
}
