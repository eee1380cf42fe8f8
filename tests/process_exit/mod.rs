//! `close()`, exit handlers, open files and temporary files of a process that has served its last
//! request: the same as when a script ends.

mod closing;
mod finalisation;
mod fork_at_import;
mod handlers;
mod libraries;
