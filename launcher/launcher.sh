#!/bin/sh
# ocirt: the launcher where no C compiler was at hand. Like launcher.c it starts Python isolated, but it is slower, does not
# fill descriptors that are closed, and a container of a privileged user could write to the file of the interpreter. A file of
# root's is safe from the containers of other users.
self=$(readlink -f -- "$0") || exit 1
directory=${self%/*}/
{ IFS= read -r line && IFS= read -r second; } <"${directory}ocirt-python" || { echo "ocirt: cannot read ${directory}ocirt-python" >&2; exit 1; }
python=${line#??}
home=
case $line in
"#!/bin/sh") python=${second#*"'''exec' "} python=${python#*"'"} python=${python%%"'"*} ;;
esac
python=${python%% -*} # pipx adds an option
case $python in /*) ;; *) python=$directory$python ;; esac
while IFS= read -r line; do
    case $line in "# home: "*) home=${line#"# home: "} ;; esac
done <"${directory}ocirt-python"
exec "$python" -I -S -B -X utf8 -c 'BOOT' "$directory" "$home" "${0##*/}" "$@"
