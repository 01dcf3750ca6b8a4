//! The compiled core of Headgate.
//!
//! Each public function has a twin in Python, which is the reference. A function here returns exactly what its twin
//! would, or `None` for "not mine": then the caller runs the twin. Nothing unusual is decided here: there are no
//! messages of errors, no warnings and no reasons.
//!
//! Only `python` knows Python. The other modules take bytes and return values.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod answer;
pub mod body;
pub mod canonical;
pub mod draft;
pub mod event;
pub mod json;
pub mod ledger;
pub mod number;
pub mod structs;
pub mod time;

#[cfg(feature = "python")]
mod python;
