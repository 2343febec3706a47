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
        *:-c|*:--config|status:--ca-file|status:--client-certificate|play:--key|job:--ca-file|job:--client-certificate|alerts:--ca-file|alerts:--client-certificate|logs:--ca-file|logs:--client-certificate|rejected:--ca-file|rejected:--client-certificate|configure-database:--import|configure-database:--copy-from) files; return ;;
        job:--state) words "up down unknown stopped inactive"; return ;;
        alerts:--state) words "open acknowledged suppressed resolved"; return ;;
        token:--role) words "admin reader sender"; return ;;
    esac
    case $command in
        "") words "-c --config --help --version status follow play job alerts logs token rejected configure-database start-consumer probe producers-needed start-producer topic completion check-config" ;;
        status) words "-h --help --json --api -c --config --ca-file --client-certificate" ;;
        follow) words "-h --help --expect --url --wait --json -c --config" ;;
        play) words_or_files "-h --help --channel --uri --speed --wait --key --server-key -c --config" ;;
        job) words "-h --help list show start stop check add change remove import --state --until --json --api -c --config --ca-file --client-certificate" ;;
        alerts) words "-h --help list test acknowledge silence --state --rule --job --limit --for --until --from --tag --subject --comment --end --json --api -c --config --ca-file --client-certificate" ;;
        logs) words "-h --help --timewindow --sender --level --min-level --contains --not --regexp --from --until --around --limit --follow --wait --json --api -c --config --ca-file --client-certificate" ;;
        token) words "-h --help create list revoke --role --expires --json -c --config" ;;
        rejected) words "-h --help list replay --topic --partition --offset --reason --json --api -c --config --ca-file --client-certificate" ;;
        configure-database) words "-h --help -c --config --import --admin-url --copy-from" ;;
        start-consumer) words_or_files "-h --help --api" ;;
        probe) words "-h --help -c --config --job --json --timeout --expected --rcode --ca-file --server-name --insecure --method --status --regexp --count --tls --starttls --subprotocol -4 -6" ;;
        producers-needed) words "-h --help -c --config" ;;
        start-producer) words_or_files "-h --help --api" ;;
        topic) words "-h --help -c --config --follow --last --json" ;;
        completion) words "-h --help bash zsh fish" ;;
        check-config) words "-h --help -c --config" ;;
    esac
}
complete -F _recodex_monitor recodex-monitor
