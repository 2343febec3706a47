# bash completion for recodex-monitor
_recodex_monitor() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= index
    words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word"); }
    files() { mapfile -t COMPREPLY < <(compgen -f -- "$word"); compopt -o filenames 2>/dev/null; }
    words_or_files() { if [[ $word == -* ]]; then words "$1"; else files; fi; }
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            -c|--config) ((index++)) ;;
            -*) ;;
            *) command=${COMP_WORDS[index]}; break ;;
        esac
    done
    COMPREPLY=()
    case $command:$before in
        *:-c|*:--config@FILES@) files; return ;;
@VALUES@
    esac
    case $command in
        "") words "-c --config --help --version @COMMANDS@" ;;
@OPTIONS@
    esac
}
complete -F _recodex_monitor recodex-monitor
