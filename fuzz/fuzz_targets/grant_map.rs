//! The program of the target `grant_map`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::grant_map::run);
