//! Log messages, error pages and what is printed: all that an exception says, and nothing that it
//! does.

mod advice;
mod descriptors;
mod exceptions;
mod hidden_modules;
mod log_form;
mod request_id;
pub(crate) mod visible;
mod waits;
