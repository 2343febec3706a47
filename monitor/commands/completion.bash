# bash completion for recodex-monitor
_recodex_monitor() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local command= index options= words= files= jobs= each
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
        @JOBS@) jobs=yes ;;
        @OTHERS@) ;;
@VALUES@
        *) case $command in
            "") options="-c --config --help --version" words="@COMMANDS@" ;;
@OPTIONS@
        esac ;;
    esac
    for each in $words; do
        # One of them is given already.
        [[ $command != "" && " ${COMP_WORDS[*]:index+1:COMP_CWORD-index-1} " == *" $each "* ]] || continue
        words=
        case $command:$each in
            @ON_JOBS@) files= jobs=yes ;;
            job:import) ;;
            job:*) files= ;;
        esac
    done
    COMPREPLY=()
    if [[ $word == -* || ! $words$files$jobs ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    elif [[ $jobs ]]; then
        while read -r each; do
            [[ $each == "$word"* ]] && COMPREPLY+=("$each")
        done < <(recodex-monitor completion bash --jobs "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
        # Names only where they are listed; they are not part of the line.
        if [[ $COMP_TYPE != 63 || ${#COMPREPLY[@]} == 1 ]]; then
            COMPREPLY=("${COMPREPLY[@]%%  (*}")
        fi
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        compopt -o filenames 2>/dev/null
    fi
}
complete -F _recodex_monitor recodex-monitor
