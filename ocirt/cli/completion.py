"""`ocirt completion`: scripts that complete the command line in bash, zsh and fish, made from the tables of flags.

All three know the same: verbs, flags (--debug before the verb, --detach behind it), the ids of containers (by `ocirt list -q`,
with the --root that was typed), the names of images (by `ocirt images --names`, with the --image-root that was typed), words
where a value is one of a few, and files or directories.
"""

from __future__ import annotations

from ocirt.cli import help as texts
from ocirt.cli import options, out, values
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options
    from ocirt.cli.values import Flag, Kind


def run(given: Options, args: list[str]) -> int:
    """Print the script for the shell args[0]. Raises Error("usage") for one that is not known."""
    makers = {"bash": bash, "zsh": zsh, "fish": fish}
    if args[0] not in makers:
        raise Error("usage", f"unknown shell: {args[0]}", hint=" or ".join(values.SHELLS))
    out(makers[args[0]](given.name))
    return 0


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _known() -> list[tuple[str, list[Flag]]]:
    """The global flags under "", and those of each verb."""
    return [(verb, values.flags(verb)) for verb in ("", *texts.flag_lines())]


def _filled(template: str, name: str, **parts: str) -> str:
    """A template with its words in capitals replaced; NAME last, as the parts have it too."""
    for word, part in parts.items():
        template = template.replace(word, part)
    return template.replace("NAME", name)


# -- bash ----------------------------------------------------------------------------------------------------------------------

_BASH = """\
# bash completion for NAME. Made by `NAME completion bash`; to be sourced, or kept in bash's directory of completions.

_NAME_flags() {
    case $1 in
FLAGS    esac
}

# The kind of the value of flag $2, of verb $1; a switch has none.
_NAME_value() {
    case "$1 $2" in
VALUES        *) return 1 ;;
    esac
}

# The kind of argument number $2 of verb $1.
_NAME_argument() {
    case "$1 $2" in
ARGUMENTS    esac
}

_NAME() {
    local cur=${COMP_WORDS[COMP_CWORD]} kind= verb= word count=1 index skip= root=()
    # bash splits --flag=value in three words.
    [[ $cur == = ]] && cur=
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == = ]]; then
            continue
        elif [[ $word == : ]]; then # image:tag
            ((index++))
            continue
        elif [[ -n $skip ]]; then
            [[ $skip == --root || $skip == --image-root ]] && root+=("$skip" "$word")
            skip=
        elif [[ $word == -?* ]]; then
            _NAME_value "$verb" "$word" >/dev/null && skip=$word
        elif [[ -z $verb ]]; then
            verb=$word
        else
            ((count++))
        fi
    done
    COMPREPLY=()
    if [[ -n $skip ]]; then
        kind=$(_NAME_value "$verb" "$skip")
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$(_NAME_flags "$verb")" -- "$cur"))
        return
    elif [[ -z $verb ]]; then
        kind="words VERBS"
    else
        kind=$(_NAME_argument "$verb" $count)
    fi
    case $kind in
        file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        directory) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        container) COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" list -q 2>/dev/null)" -- "$cur")) ;;
        image) # bash splits words at colons as well, and puts in what follows the last
            cur=${COMP_LINE:0:COMP_POINT} cur=${cur##* }
            COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" images --names 2>/dev/null)" -- "$cur"))
            COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}") ;;
        words*) COMPREPLY=($(compgen -W "${kind#words }" -- "$cur")) ;;
    esac
}

complete -F _NAME NAME
"""


def bash(name: str) -> str:
    """The script for bash 4.4 or later, without the package bash-completion."""
    flags, kinds, places = "", "", ""
    for verb, known in _known():
        forms = " ".join(form for flag in known for form in flag.forms())
        flags += f"        {_quoted(verb)}) echo {_quoted(forms)} ;;\n"
        for flag in known:
            if flag.kind:
                patterns = "|".join(f'"{verb} {form}"' for form in flag.forms())
                kinds += f"        {patterns}) echo {_quoted(_bash_kind(flag.kind))} ;;\n"
    for verb in texts.flag_lines():
        for number, kind in enumerate(values.arguments(verb), 1):
            pattern = f'"{verb} "*' if number == len(values.arguments(verb)) and values.repeats(verb) else f'"{verb} {number}"'
            places += f"        {pattern}) echo {_quoted(_bash_kind(kind))} ;;\n"
    return _filled(_BASH, name, FLAGS=flags, VALUES=kinds, ARGUMENTS=places, VERBS=" ".join(texts.flag_lines()))


def _bash_kind(kind: Kind) -> str:
    return kind if isinstance(kind, str) else "words " + " ".join(kind)


# -- zsh -----------------------------------------------------------------------------------------------------------------------

_ZSH = """\
#compdef NAME
# zsh completion for NAME. Made by `NAME completion zsh`; to be kept as _NAME in a directory of $fpath, or sourced after compinit.

_NAME_containers() {
    local -a root ids
    [[ -n $_NAME_root ]] && root=(--root $_NAME_root)
    ids=(${(f)"$(_call_program containers $service $root list -q 2>/dev/null)"})
    compadd -a ids
}

_NAME_images() {
    local -a root names
    [[ -n $_NAME_image_root ]] && root=(--image-root $_NAME_image_root)
    names=(${(f)"$(_call_program images $service $root images --names 2>/dev/null)"})
    compadd -a names
}

_NAME_verbs() {
    local -a verbs
    verbs=(
VERBS    )
    _describe -t verbs verb verbs
}

_NAME() {
    local curcontext=$curcontext state line _NAME_root= _NAME_image_root=
    typeset -A opt_args
    _arguments -C \\
GLOBAL        '1: :_NAME_verbs' \\
        '*:: :->verb' && return 0
    [[ $state == verb ]] || return 1
    _NAME_root=${(Q)opt_args[--root]} _NAME_image_root=${(Q)opt_args[--image-root]}
    case $line[1] in
CASES    esac
}

if [[ $funcstack[1] == _NAME ]]; then
    _NAME "$@"
else
    compdef _NAME NAME
fi
"""


def zsh(name: str) -> str:
    """The script for zsh 5."""
    verbs = "".join(f"        {_quoted(verb + ':' + entry[0])}\n" for verb, entry in texts.verbs().items())
    cases = ""
    for verb, known in _known()[1:]:
        specs = [_zsh_flag(name, flag) for flag in known]
        kinds = values.arguments(verb)
        specs += [_quoted(f"{number}:{_zsh_action(name, kind)}") for number, kind in enumerate(kinds, 1)]
        if values.repeats(verb):
            specs[-1] = _quoted(f"*:{_zsh_action(name, kinds[-1])}")
        if not options.reorders(verb):  # what follows is another program's
            specs.append(_quoted("*:: :_default"))
        cases += f"        {verb})\n            _arguments \\\n" + " \\\n".join("                " + one for one in specs)
        cases += "\n            ;;\n"
    before = "".join(f"        {_zsh_flag(name, flag)} \\\n" for flag in values.flags(""))
    return _filled(_ZSH, name, VERBS=verbs, GLOBAL=before, CASES=cases)


def _zsh_flag(name: str, flag: Flag) -> str:
    text = flag.text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    tail = f"[{text}]" + (f":{_zsh_action(name, flag.kind)}" if flag.kind else "")
    forms = [form + ("=" if flag.kind and form.startswith("--") else "+" if flag.kind else "") for form in flag.forms()]
    before = "*" if flag.repeats else f"({' '.join(flag.forms())})"
    # Braces outside of the quotes make one of each form.
    return _quoted(before) + ("{" + ",".join(forms) + "}" if len(forms) > 1 else forms[0]) + _quoted(tail)


def _zsh_action(name: str, kind: Kind) -> str:
    """The message and what completes, with a colon in between."""
    if not isinstance(kind, str):
        return f"word:({' '.join(kind)})"
    actions = {
        values.FILE: "_files",
        values.DIRECTORY: "_files -/",
        values.CONTAINER: f"_{name}_containers",
        values.IMAGE: f"_{name}_images",
    }
    return f"{kind}:{actions.get(kind, ' ')}"


# -- fish ----------------------------------------------------------------------------------------------------------------------

_FISH = """\
# fish completion for NAME. Made by `NAME completion fish`; to be kept as NAME.fish in a directory of $fish_complete_path.

# What stands before the cursor: the verb and its arguments, without flags and their values. With --root or --image-root: that
# flag's value.
function __NAME_words
    set -l tokens (commandline -opc)
    set -l found
    set -l skip
    for token in $tokens[2..-1]
        if test -n "$skip"
            test "$argv[1]" = "$skip"; and echo -- $token
            set skip
        else if string match -q -- '--*root=*' $token
            test -n "$argv[1]"; and string match -q -- "$argv[1]=*" $token; and string replace -- "$argv[1]=" '' $token
        else if string match -q -- '-?*' $token
            contains -- "$found[1] $token" VALUES
            and set skip $token
        else
            set -a found $token
        end
    end
    set -q argv[1]; or string join -- \\n $found
end

# Whether the verb is $argv[1], or there is none yet.
function __NAME_at
    set -l words (__NAME_words)
    test "$words[1]" = "$argv[1]"
end

# Whether argument number $argv[2] of verb $argv[1] is next; with a third word, or one behind it.
function __NAME_argument
    set -l words (__NAME_words)
    test "$words[1]" = "$argv[1]"; or return
    test (count $words) = $argv[2]; and return
    set -q argv[3]; and test (count $words) -gt $argv[2]
end

function __NAME_containers
    set -l command (commandline -opc)[1]
    set -l root (__NAME_words --root)
    if set -q root[1]
        $command --root $root[-1] list -q 2>/dev/null
    else
        $command list -q 2>/dev/null
    end
end

function __NAME_images
    set -l command (commandline -opc)[1]
    set -l root (__NAME_words --image-root)
    if set -q root[1]
        $command --image-root $root[-1] images --names 2>/dev/null
    else
        $command images --names 2>/dev/null
    end
end

complete -c NAME -f
LINES"""


def fish(name: str) -> str:
    """The script for fish 3."""
    lines, with_value = "", []
    for verb, known in _known():
        if verb:
            lines += f"complete -c NAME -n {_fish('__NAME_at ' + _fish(''))} -a {verb} -d {_fish(texts.verbs()[verb][0])}\n"
        for flag in known:
            if flag.kind:
                with_value += [_fish(f"{verb} {form}") for form in flag.forms()]
            short = f" -s {flag.alias}" if flag.alias else ""
            value = (" -r" if flag.kind == values.FILE else " -x") + _fish_kind(flag.kind) if flag.kind else ""
            condition = _fish(f"__NAME_at {_fish(verb)}")
            lines += f"complete -c NAME -n {condition} -l {flag.name}{short}{value} -d {_fish(flag.text)}\n"
        kinds = values.arguments(verb) if verb else []
        for number, kind in enumerate(kinds, 1):
            more = " more" if number == len(kinds) and values.repeats(verb) else ""
            if kind != values.ANY:
                lines += f"complete -c NAME -n {_fish(f'__NAME_argument {verb} {number}{more}')}{_fish_kind(kind)}\n"
    return _filled(_FISH, name, VALUES=" ".join(with_value), LINES=lines)


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_kind(kind: Kind) -> str:
    if not isinstance(kind, str):
        return f" -a {_fish(' '.join(kind))}"
    kinds = {
        values.FILE: " -F",
        values.DIRECTORY: " -a '(__fish_complete_directories (commandline -ct))'",
        values.CONTAINER: " -a '(__NAME_containers)'",
        values.IMAGE: " -a '(__NAME_images)'",
    }
    return kinds.get(kind, "")
