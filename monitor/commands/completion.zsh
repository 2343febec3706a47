#compdef recodex-monitor
_recodex_monitor() {
    local -a commands
    commands=(
@COMMANDS@
    )
    local state line curcontext=$curcontext
    _arguments -C '(-c --config)'{-c,--config}'[the config]:file:_files' \
        '--version[print the version]' '--help[print a help text]' \
        '1: :->command' '*:: :->arguments'
    case $state in
        command) _describe command commands ;;
        arguments)
            case $words[1] in
@ARGUMENTS@
            esac ;;
    esac
    [[ $state == job ]] || return
    case $words[1]:${words[(r)(import|@ON_JOBS@)]} in
        job:import) _files ;;
        job:?*|alerts:*|probe:*)
            local -a jobs
            jobs=(${(f)"$(recodex-monitor completion zsh --jobs "$LBUFFER" 2>/dev/null)"})
            _describe job jobs ;;
    esac
}
if [ "$funcstack[1]" = _recodex_monitor ]; then
    _recodex_monitor "$@"
else
    compdef _recodex_monitor recodex-monitor
fi
