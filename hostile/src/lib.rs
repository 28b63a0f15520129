//! A peer that speaks kvx's protocol and breaks its rules.
#![forbid(unsafe_code)]
