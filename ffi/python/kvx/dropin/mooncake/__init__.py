"""Mooncake's `mooncake.engine` on kvx: same names, arguments and return codes.

In reading order: `engine` is the class that callers have; `service` what it is between two calls of
`initialize`; `transfers` one call's bytes on their way; `peers`, `memory`, `batches` what the
service keeps; `settings`, `addresses`, `arguments`, `values` what comes from outside. `installed`
finds the parts of Mooncake that are not its engine. docs/compatibility/mooncake.md lists where the
behaviour differs, and why.
"""
