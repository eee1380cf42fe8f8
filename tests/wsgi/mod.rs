//! PEP 3333, row by row: what an application sees and what becomes of what it answers.
//!
//! The name of a test begins with the row of `docs/conformance.md` that it proves. `both` asks the
//! reference implementation the same; where that departs from the row, a comment says how.

mod body;
mod close;
mod environ;
mod errors;
mod failures;
mod file_wrapper;
mod input;
mod input_property;
mod start_response;
mod validated;
