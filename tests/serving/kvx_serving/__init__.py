"""Plays vLLM and SGLang, prefill and decode, with kvx between them, against one server that does both.

A program for `cargo xtask serving`, not a library: it starts the servers by the scripts in
examples/serving, asks them for tokens, looks at their processes, and prints a line for each thing
that held or did not (`rows`).
"""
