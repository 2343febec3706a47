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
        *:-c|*:--config|status:--ca-file|status:--client-certificate|play:--key|job:--ca-file|job:--client-certificate|alerts:--ca-file|alerts:--client-certificate|logs:--ca-file|logs:--client-certificate|rejected:--ca-file|rejected:--client-certificate|configure-database:--import|configure-database:--copy-from|probe:--ca-file) files=yes ;;
        alerts:--job|probe:--job) jobs=yes ;;
        status:--api|follow:--expect|follow:--url|follow:--wait|play:--channel|play:--uri|play:--speed|play:--wait|play:--server-key|job:--until|job:--api|alerts:--rule|alerts:--limit|alerts:--for|alerts:--until|alerts:--from|alerts:--tag|alerts:--subject|alerts:--comment|alerts:--end|alerts:--api|logs:--timewindow|logs:--sender|logs:--level|logs:--min-level|logs:--contains|logs:--not|logs:--regexp|logs:--from|logs:--until|logs:--around|logs:--limit|logs:--wait|logs:--api|token:--expires|rejected:--topic|rejected:--partition|rejected:--offset|rejected:--reason|rejected:--api|configure-database:--admin-url|probe:--timeout|probe:--expected|probe:--rcode|probe:--server-name|probe:--method|probe:--status|probe:--regexp|probe:--count|probe:--starttls|probe:--subprotocol|topic:--last|completion:--jobs) ;;
        job:--state) words="up down unknown stopped inactive" ;;
        alerts:--state) words="open acknowledged suppressed resolved" ;;
        token:--role) words="admin reader sender" ;;
        *) case $command in
            "") options="-c --config --help --version" words="status follow play job alerts logs token rejected configure-database start-consumer probe producers-needed start-producer topic completion check-config" ;;
            status) options="-h --help --json --api -c --config --ca-file --client-certificate" words="" files= ;;
            follow) options="-h --help --expect --url --wait --json -c --config" words="" files= ;;
            play) options="-h --help --channel --uri --speed --wait --key --server-key -c --config" words="" files=yes ;;
            job) options="-h --help --state --until --json --api -c --config --ca-file --client-certificate" words="list show start stop check add change remove import" files=yes ;;
            alerts) options="-h --help --state --rule --job --limit --for --until --from --tag --subject --comment --end --json --api -c --config --ca-file --client-certificate" words="list test acknowledge silence" files= ;;
            logs) options="-h --help --timewindow --sender --level --min-level --contains --not --regexp --from --until --around --limit --follow --wait --json --api -c --config --ca-file --client-certificate" words="" files= ;;
            token) options="-h --help --role --expires --json -c --config" words="create list revoke" files= ;;
            rejected) options="-h --help --topic --partition --offset --reason --json --api -c --config --ca-file --client-certificate" words="list replay" files= ;;
            configure-database) options="-h --help -c --config --import --admin-url --copy-from" words="" files= ;;
            start-consumer) options="-h --help --api" words="" files=yes ;;
            probe) options="-h --help -c --config --job --json --timeout --expected --rcode --ca-file --server-name --insecure --method --status --regexp --count --tls --starttls --subprotocol -4 -6" words="" files= ;;
            producers-needed) options="-h --help -c --config" words="" files= ;;
            start-producer) options="-h --help --api" words="" files=yes ;;
            topic) options="-h --help -c --config --follow --last --json" words="" files= ;;
            completion) options="-h --help --jobs" words="bash zsh fish" files= ;;
            check-config) options="-h --help -c --config" words="" files= ;;
        esac ;;
    esac
    for each in $words; do
        # One of them is given already.
        [[ $command != "" && " ${COMP_WORDS[*]:index+1:COMP_CWORD-index-1} " == *" $each "* ]] || continue
        words=
        case $command:$each in
            job:show|job:start|job:stop|job:check|job:change|job:remove) files= jobs=yes ;;
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
