//! The program of the target `handshake_message`; see the library.
#![cfg_attr(fuzzing, no_main)]

kvx_fuzz::program!(kvx_fuzz::handshake_message::run);
