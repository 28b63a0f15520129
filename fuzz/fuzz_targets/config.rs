//! The program of the target `config`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::config::run);
