//! The program of the target `hostile`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::hostile::run);
