//! The program of the target `blocks`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::blocks::run);
