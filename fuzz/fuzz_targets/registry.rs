//! The program of the target `registry`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::registry::run);
