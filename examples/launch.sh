#!/usr/bin/env bash
# One training by several processes that start together, and start again
# together when one dies: every start goes on from the run's last checkpoint.
#
#   examples/launch.sh -n 2 DATA --run DIR [...]
#       two processes on this machine (--strategy multiworker)
#   examples/launch.sh -h "node1 node2:2300" DATA --run DIR [...]
#       one on each of these machines, by ssh; they hold DATA and the package
#       at the same paths as this one; the first one writes DIR
#   examples/launch.sh -s 2 -n 3 SHARDS --run DIR [...]
#   examples/launch.sh -s "node0" -h "node1 node2" SHARDS --run DIR [...]
#       two parameter servers, a chief and three workers
#       (--strategy parameter-server); the chief is on this machine, at -c
#
#   -n COUNT     workers on this machine
#   -h HOSTS     workers elsewhere: hosts, or host:port
#   -s SERVERS   parameter servers: a count on this machine, or hosts
#   -c ADDRESS   the chief's address for others (default: localhost:PORT)
#   -p PORT      the first port (default: 23400)
#   -r RESTARTS  how often all may start again (default: 100; but not after
#                four starts in a row of which none lasted a minute)
#
# What follows goes to `videofusion train`. A worker of parameter servers that
# dies starts again alone; the others go on meanwhile.
set -uo pipefail

workers=() servers=() names=() addresses=() pids=()
count='' hosts='' served='' chief='' port=23400 restarts=100
while getopts n:h:s:c:p:r: flag; do
  case $flag in
    n) count=$OPTARG ;;
    h) hosts=$OPTARG ;;
    s) served=$OPTARG ;;
    c) chief=$OPTARG ;;
    p) port=$OPTARG ;;
    r) restarts=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
if [ $# = 0 ] || { [ -z "$count" ] && [ -z "$hosts" ]; }; then
  sed -n '2,26s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

# Sets `found` to addresses: so many here, or those of the hosts. No two have
# a port in common, so that a host may be named twice.
place() {
  found=()
  case $1 in
    '' | *[!0-9]*) local at=($1) ;;
    *) local at=() i; for ((i = 0; i < $1; i++)); do at+=(localhost); done ;;
  esac
  local host
  for host in ${at[@]+"${at[@]}"}; do
    case $host in
      *:*) found+=("$host") ;;
      *) found+=("$host:$port"); port=$((port + 1)) ;;
    esac
  done
}

# A list of JSON strings.
listed() {
  local text='' item
  for item in "$@"; do text="$text${text:+, }\"$item\""; done
  echo "[$text]"
}

strategy=multiworker
if [ -n "$served" ]; then
  strategy=parameter-server
  place "${chief:-1}"
  chief=${found[0]}
  place "$served"
  servers=("${found[@]}")
fi
place "${hosts:-$count}"
workers=("${found[@]}")
cluster="\"worker\": $(listed "${workers[@]}")"
if [ -n "$served" ]; then
  cluster="\"chief\": [\"$chief\"], \"ps\": $(listed "${servers[@]}"), $cluster"
  names+=("chief 0")
  addresses+=("$chief")
  for i in "${!servers[@]}"; do
    names+=("ps $i")
    addresses+=("${servers[$i]}")
  done
fi
for i in "${!workers[@]}"; do
  names+=("worker $i")
  addresses+=("${workers[$i]}")
done

# Starts the process of that number in `names`.
start() {
  local job=${names[$1]% *} index=${names[$1]#* } host=${addresses[$1]%:*}
  local config="{\"cluster\": {$cluster}, \
\"task\": {\"type\": \"$job\", \"index\": $index}}"
  local command=(videofusion train "${@:2}" --strategy "$strategy" --resume)
  if [ "$host" = localhost ] || [ "$job" = chief ]; then
    TF_CONFIG=$config "${command[@]}" &
  else
    # With a terminal of its own it ends when the connection does.
    ssh -tt -o BatchMode=yes "$host" \
      "cd $(printf %q "$PWD") && TF_CONFIG=$(printf %q "$config") \
$(printf '%q ' "${command[@]}")" </dev/null &
  fi
  pids[$1]=$!
  echo "launch: ${names[$1]} at ${addresses[$1]} is process ${pids[$1]}"
}

end() {
  kill ${pids[@]+"${pids[@]}"} 2>/dev/null
  wait
}
trap 'end; exit 130' INT TERM

# Lets all end by themselves, which takes them a minute at most.
settle() {
  local left=$((SECONDS + 75)) pid alive=1
  while [ $alive = 1 ] && [ $SECONDS -lt $left ]; do
    alive=0
    for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null && alive=1; done
    [ $alive = 0 ] || sleep 0.5
  done
  kill -9 "${pids[@]}" 2>/dev/null
  wait
}

quick=0
for ((again = 0; again <= restarts; again++)); do
  begun=$SECONDS
  for i in "${!names[@]}"; do start "$i" "$@"; done
  failed='' ended=0
  # Until the first has ended well, or one has failed.
  while [ -z "$failed" ] && [ $ended = 0 ]; do
    sleep 0.5
    for i in "${!names[@]}"; do
      kill -0 "${pids[$i]}" 2>/dev/null && continue
      wait "${pids[$i]}"
      status=$?
      if [ $status = 0 ]; then
        [ "$i" != 0 ] || ended=1
      elif [ "${names[0]}" = "chief 0" ] && [ "${names[$i]% *}" = worker ] \
        && kill -0 "${pids[0]}" 2>/dev/null; then
        start "$i" "$@"
      else
        failed=${names[$i]}
        break
      fi
    done
  done
  settle
  [ -n "$failed" ] || exit 0
  # What fails at once, and again, will not mend by itself.
  if [ $((SECONDS - begun)) -lt 60 ]; then quick=$((quick + 1)); else quick=0; fi
  if [ "$status" = 2 ] || [ $quick = 4 ] || [ $again = "$restarts" ]; then
    echo "launch: $failed ended with status $status" >&2
    exit "$status"
  fi
  echo "launch: $failed ended with status $status; all start again"
done
