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
}
if [ "$funcstack[1]" = _recodex_monitor ]; then
    _recodex_monitor "$@"
else
    compdef _recodex_monitor recodex-monitor
fi
