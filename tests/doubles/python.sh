#!/bin/bash
# An interpreter that only says what it is: the facts in the file beside it. It answers
# what the launch scripts ask, and writes all else that it is told to do into a log.
# shellcheck disable=SC1090,SC2001,SC2154
source "$0.facts"
[[ "$version" == broken ]] && exit 127
case "$*" in
  *"import ensurepip"*) echo "$version $machine $tensorflow $0"; exit ;;
  *find_spec*) [[ $npu_bridge == there ]]; exit ;;
  *"import horovod"*) [[ $horovod == there || -e ${0%/bin/*}/horovod ]]; exit ;;
  "-c ") exit 0 ;;
esac
echo "$PWD|$PYTHONPATH|$*|$HOROVOD_GPU_OPERATIONS" >> "$STUB_LOG"
[[ -z $STUB_FAILS || "$*" != *"$STUB_FAILS"* ]] || { echo "$STUB_SAYS"; exit 1; }
case "$*" in
  *addsitedir*) echo "import site" ;;
  *"pip --no-input list"*) echo "numpy==1.17.0" ;;
  "-E -m venv "*)
    sleep 0.1
    mkdir -p "$4/bin" "$4/lib/python3/site-packages"
    cp "$0" "$4/bin/python"
    cp "$0.facts" "$4/bin/python.facts" ;;
  *"--find-links "*)
    folder="$(sed 's/.*--find-links \(.*\) --force.*/\1/' <<<"$*")"
    [[ -e $folder/horovod.whl ]] && echo > "${0%/bin/*}/horovod" ;;
  *" wheel "*)
    folder="$(sed 's/.*--wheel-dir \(.*\) horovod/\1/' <<<"$*")"
    echo > "$folder/horovod.whl" ;;
esac
