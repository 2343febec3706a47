# bash completion for recodex-monitor
_recodex_monitor() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command= index options= words= files= each
    # `--state=down` is three words, because "=" separates words.
    [[ $word != = ]] || word=
    [[ $before != = ]] || before=${COMP_WORDS[COMP_CWORD-2]}
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
            -c|--config) ((index++)) ;;
            -*) ;;
            *) command=${COMP_WORDS[index]}; break ;;
        esac
    done
    case $command:$before in
        *:-c|*:--config@FILES@) files=yes ;;
        @OTHERS@) ;;
@VALUES@
        *) case $command in
            "") options="-c --config --help --version" words="@COMMANDS@" ;;
@OPTIONS@
        esac ;;
    esac
    for each in $words; do
        # One of them is given already.
        [[ $command != "" && " ${COMP_WORDS[*]:index+1:COMP_CWORD-index-1} " == *" $each "* ]] && words=
    done
    COMPREPLY=()
    if [[ $word == -* || ! $words$files ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        compopt -o filenames 2>/dev/null
    fi
}
complete -F _recodex_monitor recodex-monitor
