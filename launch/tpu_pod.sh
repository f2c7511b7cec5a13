#!/usr/bin/env bash
# A TPU slice by queued resources: made, installed on, trained on, watched and deleted.
#
#   launch/tpu_pod.sh up     --name gpt2 --zone us-west4-a --type v5litepod-16 --spot -- \
#       gpt2-jax train --config configs/gpt2_small.py --workdir gs://bucket/gpt2
#   launch/tpu_pod.sh watch  ...the same...   after up: makes the slice anew and starts again when it
#       is preempted, until the run ends
#   launch/tpu_pod.sh status|logs|stop|delete --name gpt2 --zone us-west4-a
#   launch/tpu_pod.sh run    --name gpt2 --zone us-west4-a -- df -h    on every worker
#
# up is create, install and start, which are commands too. start runs the command under
# launch/supervise.py on every worker, in the background: it outlives the connection and writes
# train.log in the home folder. The run goes on from its gs:// workdir, so nothing on the workers
# needs keeping.
#
#   --name NAME         of the queued resource and the TPU VM
#   --zone ZONE         with TPUs of that type
#   --type TYPE         accelerator type, such as v4-32, v5litepod-16, v5p-32, v6e-16
#   --version VERSION   of the TPU VM's software; by default the one for the type
#   --project PROJECT   by default gcloud's own
#   --spot, --reserved  how it is paid for; by default on demand
#   --setup COMMAND     for every worker's shell after the installation, such as one that fetches data
#   --logs gs://...     where each worker copies its log every minute
#   --dry-run           prints the commands, runs nothing
#
# What is installed is the last commit. Needs gcloud, logged in. POLL_S is the seconds between looks
# at the state (default 30).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

refuse() {
  echo "error: $1 (see launch/tpu_pod.sh --help)" >&2
  exit 2
}

check_workdir() { # COMMAND
  # Up to 8 cores or chips are one host, whose folders are those of the run.
  ((${type##*-} > 8)) || return 0
  local word before=''
  for word in "$@"; do
    [[ $before != --workdir ]] || word=--workdir=$word
    if [[ $word == --workdir=* && $word != --workdir=gs://* ]]; then
      refuse "${word/=/ }: the hosts of a $type share no folder; name gs://BUCKET/RUN"
    fi
    before=$word
  done
}

verb=${1-}
case $verb in
-h | --help)
  sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0"
  exit 0
  ;;
up | create | install | start | run | watch | status | logs | stop | delete) shift ;;
*) refuse "name what to do: up, create, install, start, run, watch, status, logs, stop or delete" ;;
esac

name='' zone='' type='' version='' project='' tier='' setup='' logs='' dry_run=''
while (($#)) && [[ $1 != -- ]]; do
  case $1 in
  --name | --zone | --type | --version | --project | --setup | --logs)
    [[ $# -ge 2 && $2 != --* ]] || refuse "$1 needs a value"
    printf -v "${1#--}" %s "$2"
    shift 2
    ;;
  --spot | --reserved)
    [[ -z $tier ]] || refuse "$1 and $tier exclude each other"
    tier=$1
    shift
    ;;
  --dry-run | --dry_run)
    dry_run=yes
    shift
    ;;
  -*) refuse "unknown flag $1" ;;
  *) refuse "put -- before the command: launch/tpu_pod.sh $verb [flags] -- $1 ..." ;;
  esac
done
(($# == 0)) || shift # the --
[[ $name ]] || refuse "--name NAME is missing"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "--name $name: lower-case letters, digits and dashes"
[[ $zone ]] || refuse "--zone ZONE is missing"
case $verb in
up | create | start | watch)
  # The chip's name in launch/flags.sh, and the software that Google's table lists for it.
  case $type in
  v4-*) chip=v4 default=tpu-ubuntu2204-base ;;
  v5litepod-*) chip=v5e default=v2-alpha-tpuv5-lite ;;
  v5p-*) chip=v5p default=v2-alpha-tpuv5 ;;
  v6e-*) chip=v6e default=v2-alpha-tpuv6e ;;
  *) chip='' default='' ;;
  esac
  [[ $chip && $type =~ -[1-9][0-9]*$ ]] ||
    refuse "--type '$type' is none of v4-N, v5litepod-N, v5p-N, v6e-N"
  version=${version:-$default}
  ;;
esac
case $verb in
up | start | run | watch) (($#)) || refuse "name a command after --" ;;
esac
case $verb in
up | start | watch) check_workdir "$@" ;;
esac
[[ $dry_run ]] || type -P gcloud >/dev/null ||
  refuse "gcloud is not on the PATH: install Google Cloud's command line, then gcloud auth login"
command=("$@")
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")

exec 3>&1 # a dry run's commands, also from where output is captured

quoted() { # WORDS, as a shell would take them
  local word line=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+~-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
}

run() {
  if [[ $dry_run ]]; then
    quoted "$@" >&3
  else
    "$@"
  fi
}

state() { # [what a dry run is to find]
  run gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    '--format=value(state.state)' || return
  [[ -z $dry_run ]] || echo "${1-ACTIVE}"
}

on_workers() { # WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

lost_sight() { # after gcloud has said why
  echo "error: can't look at $name in $zone: is gcloud logged in (gcloud auth login), and are \
--name, --zone and --project right?" >&2
  exit 1
}

create() {
  run gcloud compute tpus queued-resources create "$name" "${where[@]}" "--node-id=$name" \
    "--accelerator-type=$type" "--runtime-version=$version" \
    --scopes=https://www.googleapis.com/auth/cloud-platform ${tier:+"$tier"}
  local now
  now=$(state)
  while [[ $now != ACTIVE ]]; do
    case $now in
    FAILED | SUSPENDED)
      echo "error: $name is $now: 'launch/tpu_pod.sh delete' it, and try another zone or tier" >&2
      return 1
      ;;
    esac
    echo "$name is ${now:-not there yet}" >&2
    sleep "${POLL_S:-30}"
    now=$(state)
  done
}

install() {
  local archive=gpt2_jax.tar.gz
  run git -C "$root" archive --format=tar.gz "--output=/tmp/$archive" HEAD
  run gcloud compute tpus tpu-vm scp "/tmp/$archive" "$name:" "${where[@]}" --worker=all
  # The machines' own Python may be older than the project's; uv brings one.
  on_workers all "rm -rf gpt2_jax && mkdir gpt2_jax && tar -xzf $archive -C gpt2_jax && cd gpt2_jax \
&& python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --python 3.12 .venv \
&& ~/.local/bin/uv pip install --quiet '.[tpu,gcs]'"
  [[ -z $setup ]] || on_workers all "$setup"
}

start() {
  local copy=''
  # shellcheck disable=SC2016
  [[ -z $logs ]] || copy='(while kill -0 $(cat ~/train.pid); do sleep 60; '"\
gcloud storage cp --quiet ~/train.log $(quoted "$logs/")"'$(hostname).log; done) >/dev/null 2>&1 </dev/null & '
  # setsid: the end of the connection does not reach it.
  on_workers all "cd gpt2_jax && export PATH=\$PWD/.venv/bin:\$PATH && \
rm -f ~/train.status && { setsid launch/flags.sh $chip launch/supervise.py --status_file ~/train.status -- $(quoted "${command[@]}") \
>>~/train.log 2>&1 </dev/null & echo \$! >~/train.pid; ${copy}sleep 1; }"
}

watch() { # until the run ends: its status is this script's
  local now made ended='' gone='' seen=''
  while true; do
    # After the first, a look that fails, as for want of a network, tells nothing.
    if ! now=$(state SUSPENDED); then
      [[ $seen ]] || lost_sight
      now=UNKNOWN
    fi
    seen=yes
    case $now in
    SUSPENDED | FAILED) gone=yes ;;
    ACTIVE)
      [[ $gone ]] || ended=$(on_workers 0 'cat train.status 2>/dev/null || true') || ended=''
      if [[ $ended =~ ^[0-9]+$ ]]; then
        echo "the run has ended with $ended" >&2
        return "$ended"
      fi
      ;;
    esac
    if [[ $gone ]]; then
      echo "$name is $now: making it anew" >&2
      set +e # for the shell in the brackets to end at what fails in it, and only that one
      (
        set -e
        delete || true # it may have gone by itself
        create
        install
        start
      )
      made=$?
      set -e
      ((made)) || gone=''
      [[ -z $gone ]] || echo "$name could not be made anew; trying again" >&2
    fi
    [[ -z $dry_run ]] || return 0
    sleep "${POLL_S:-30}"
  done
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

case $verb in
up)
  create
  install
  start
  ;;
create | install | start | watch | delete) "$verb" ;;
status)
  now=$(state) || lost_sight
  echo "$name: $now"
  # shellcheck disable=SC2016 # for the workers' shells
  on_workers all 'kill -0 $(cat train.pid) && echo "$(hostname): running" || echo "$(hostname): not running"'
  ;;
run) on_workers all "$(quoted "${command[@]}")" ;;
logs) on_workers 0 'tail -n 100 -f train.log' ;;
stop)
  # The supervisor passes it on; the run saves and ends.
  # shellcheck disable=SC2016
  on_workers all 'kill -TERM $(cat train.pid)'
  ;;
esac
