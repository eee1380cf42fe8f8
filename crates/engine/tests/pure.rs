//! Runs the unit tests of the engine's files that do not use Python.
//!
//! The engine itself is an extension module, which only a Python interpreter can load: its own test
//! program would not link. This program includes the files under their paths in the engine.

#![expect(dead_code, reason = "the engine calls the functions that no test calls")]

#[path = "../src/advice"]
mod advice {
    mod distributions;
    mod python2;
    mod removed_modules;
}

#[path = "../src/wsgi"]
mod wsgi {
    mod forwarded;
    mod forwarded_tests;
    mod headers;
    mod names;
    mod variables;
    mod variables_tests;
}
