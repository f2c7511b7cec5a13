#!/usr/bin/env bash
# Creates a TPU slice by queued resources, installs the project, trains, watches and deletes it.
#
#   launch/tpu_pod.sh up     --name gpt2 --zone us-west4-a --type v5litepod-16 --spot -- \
#       gpt2-jax train --config configs/gpt2_small.py --workdir gs://bucket/gpt2
#   launch/tpu_pod.sh watch  ...the same...   after up: creates the slice again and restarts the run
#       when the slice is preempted, until the run ends
#   launch/tpu_pod.sh status|logs|stop|delete --name gpt2 --zone us-west4-a
#   launch/tpu_pod.sh run    --name gpt2 --zone us-west4-a -- df -h    on every worker
#
# up is create, install and start, which are commands too. start runs the command under
# launch/supervise.py on every worker, in the background: it continues after the connection ends and
# writes train.log in the home folder. The run resumes from its gs:// workdir, so nothing on the
# workers must be kept.
#
#   --name NAME         name of the queued resource and of the TPU VM
#   --zone ZONE         a zone with TPUs of that type
#   --type TYPE         accelerator type, such as v4-32, v5litepod-16, v5p-32, v6e-16
#   --version VERSION   software of the TPU VM; by default that for the type
#   --project PROJECT   by default the project of gcloud
#   --spot, --reserved  how the slice is paid for; by default on demand
#   --setup COMMAND     run on every worker after the installation, for example to copy data
#   --logs gs://...     folder to which each worker copies its log every minute
#   --dry-run           prints the commands, without running them
#
# It installs the last commit. It needs gcloud, logged in. POLL_S is the number of seconds between
# checks of the state (default: 30).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

refuse() {
  echo "error: $1 (see launch/tpu_pod.sh --help)" >&2
  exit 2
}

check_workdir() { # COMMAND
  # Up to 8 cores or chips are one host, so the workdir may be a local folder.
  ((${type##*-} > 8)) || return 0
  local word before=''
  for word in "$@"; do
    [[ $before != --workdir ]] || word=--workdir=$word
    if [[ $word == --workdir=* && $word != --workdir=gs://* ]]; then
      refuse "${word/=/ }: the hosts of a $type do not share a disk: use gs://BUCKET/RUN"
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
*) refuse "the command must be up, create, install, start, run, watch, status, logs, stop or delete" ;;
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
    [[ -z $tier ]] || refuse "$1 and $tier cannot be combined"
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
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || refuse "--name $name must consist of lower-case letters, digits and dashes"
[[ $zone ]] || refuse "--zone ZONE is missing"
case $verb in
up | create | start | watch)
  # The name of the chip in launch/flags.sh, and the software that Google lists for it.
  case $type in
  v4-*) chip=v4 default=tpu-ubuntu2204-base ;;
  v5litepod-*) chip=v5e default=v2-alpha-tpuv5-lite ;;
  v5p-*) chip=v5p default=v2-alpha-tpuv5 ;;
  v6e-*) chip=v6e default=v2-alpha-tpuv6e ;;
  *) chip='' default='' ;;
  esac
  [[ $chip && $type =~ -[1-9][0-9]*$ ]] ||
    refuse "--type '$type' must be one of v4-N, v5litepod-N, v5p-N, v6e-N"
  version=${version:-$default}
  ;;
esac
case $verb in
up | start | run | watch) (($#)) || refuse "the command is missing: put it after --" ;;
esac
case $verb in
up | start | watch) check_workdir "$@" ;;
esac
[[ $dry_run ]] || type -P gcloud >/dev/null ||
  refuse "gcloud is not on the PATH: install the Google Cloud CLI, then run gcloud auth login"
command=("$@")
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")

exec 3>&1 # for the commands of a dry run, even where output is captured

quoted() { # WORDS: prints them quoted for a shell
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

state() { # [the state that a dry run assumes]
  run gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
    '--format=value(state.state)' || return
  [[ -z $dry_run ]] || echo "${1-ACTIVE}"
}

on_workers() { # WORKERS COMMAND
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

state_unknown() { # after gcloud has printed why
  echo "error: cannot read the state of $name in $zone: check that gcloud is logged in (gcloud auth \
login), and that --name, --zone and --project are right" >&2
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
    echo "$name is ${now:-not listed yet}" >&2
    sleep "${POLL_S:-30}"
    now=$(state)
  done
}

install() {
  local archive=gpt2_jax.tar.gz
  run git -C "$root" archive --format=tar.gz "--output=/tmp/$archive" HEAD
  run gcloud compute tpus tpu-vm scp "/tmp/$archive" "$name:" "${where[@]}" --worker=all
  # The Python of the machines may be too old, so uv installs one.
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
  # setsid keeps it running after the connection ends.
  on_workers all "cd gpt2_jax && export PATH=\$PWD/.venv/bin:\$PATH && \
rm -f ~/train.status && { setsid launch/flags.sh $chip launch/supervise.py --status_file ~/train.status -- $(quoted "${command[@]}") \
>>~/train.log 2>&1 </dev/null & echo \$! >~/train.pid; ${copy}sleep 1; }"
}

watch() { # until the run ends; returns its status
  local now made ended='' gone='' seen=''
  while true; do
    # After the first check, a failure may be one of the network and is ignored.
    if ! now=$(state SUSPENDED); then
      [[ $seen ]] || state_unknown
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
      echo "$name is $now: creating it again" >&2
      set +e # so that a failure ends the subshell only
      (
        set -e
        delete || true # it may be deleted already
        create
        install
        start
      )
      made=$?
      set -e
      ((made)) || gone=''
      [[ -z $gone ]] || echo "$name could not be created; trying again" >&2
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
  now=$(state) || state_unknown
  echo "$name: $now"
  # shellcheck disable=SC2016 # for the workers' shells
  on_workers all 'kill -0 $(cat train.pid) && echo "$(hostname): running" || echo "$(hostname): not running"'
  ;;
run) on_workers all "$(quoted "${command[@]}")" ;;
logs) on_workers 0 'tail -n 100 -f train.log' ;;
stop)
  # The supervisor passes the signal on, and the run saves and ends.
  # shellcheck disable=SC2016
  on_workers all 'kill -TERM $(cat train.pid)'
  ;;
esac
