"""`ocirt-cni completion`: what shells complete the command line with, made from the tables in `options`."""

from __future__ import annotations

from ocirt_cni.cli import options
from ocirt_cni.cli.nearest import nearest
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out
from ocirt_cni.errors import INVALID_ENVIRONMENT, Error
from ocirt_cni.plugins import PLUGINS

_NETWORKS = "ocirt-cni list 2>/dev/null | tail -n +2 | cut -d ' ' -f 1"  # NETCONFPATH counts, as in the command itself
_OF_A_NETWORK = ("add", "check", "del", "gc", "show", "status")
_WORDS = {"plugins": "install list remove", "completion": "bash zsh fish"}


def run(given: Options) -> int:
    """Print a shell's completion. Raises Error."""
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    shell = given.arguments[0]
    if shell not in shells:
        found = nearest(shell, shells)
        raise Error(
            INVALID_ENVIRONMENT, f"there is none for {shell}", hint=f"did you mean {found}?" if found else "bash, zsh, fish"
        )
    out(shells[shell]())
    return 0


def _flags(verb: str) -> list[str]:
    """Long flags of a verb and of the command."""
    return [f"--{word.rstrip('=*').partition(',')[0]}" for word in f"{options.VERBS[verb][4]} {options.GLOBAL}".split()]


def bash() -> str:
    """For bash."""
    cases = []
    for verb in options.VERBS:
        words = _WORDS.get(verb, f"$({_NETWORKS})" if verb in _OF_A_NETWORK else "")
        if verb == "plugins":
            words += " " + " ".join(PLUGINS)
        cases.append(f'        {verb}) words="{words}"; flags="{" ".join(_flags(verb))}" ;;')
    return "\n".join(
        [
            "# bash completion for ocirt-cni",
            "_ocirt_cni() {",
            '    local current=${COMP_WORDS[COMP_CWORD]} verb="" word words="" flags=""',
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            f"        case $word in {'|'.join(options.VERBS)}) verb=$word; break ;; esac",
            "    done",
            "    case $verb in",
            f'        "") words="{" ".join(options.VERBS)}"; flags="{" ".join("--" + name for name in _global())}" ;;',
            *cases,
            "    esac",
            "    [[ $current == -* ]] && words=$flags",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
            "}",
            "complete -o default -F _ocirt_cni ocirt-cni",
            "",
        ]
    )


def zsh() -> str:
    """For zsh: bash's, by zsh's own emulation."""
    return "#compdef ocirt-cni\nautoload -U +X bashcompinit && bashcompinit\n" + bash().replace(
        'mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")', 'COMPREPLY=($(compgen -W "$words" -- "$current"))'
    )


def fish() -> str:
    """For fish."""
    lines = ["# fish completion for ocirt-cni"]
    verbs = " ".join(options.VERBS)
    for verb, entry in options.VERBS.items():
        lines.append(f"complete -c ocirt-cni -n 'not __fish_seen_subcommand_from {verbs}' -f -a {verb} -d \"{entry[0]}\"")
        seen = f"-n '__fish_seen_subcommand_from {verb}'"
        for word in entry[4].split():
            name = word.rstrip("=*").partition(",")[0]
            value = " -r" if word[-1] in "=*" else ""
            lines.append(f'complete -c ocirt-cni {seen} -l {name}{value} -d "{_quoted(options.FLAGS[name])}"')
        if verb in _OF_A_NETWORK:
            lines.append(f'complete -c ocirt-cni {seen} -a "({_NETWORKS})"')
        if verb in _WORDS:
            lines.append(f'complete -c ocirt-cni {seen} -a "{_WORDS[verb]}"')
    for name in _global():
        lines.append(f'complete -c ocirt-cni -l {name} -d "{_quoted(options.FLAGS[name])}"')
    return "\n".join(lines) + "\n"


def _global() -> list[str]:
    return [word.rstrip("=*").partition(",")[0] for word in options.GLOBAL.split()]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
